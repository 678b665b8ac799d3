"""What a policy earns, and which experts earn it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from mofme.control.environments import make
from mofme.control.policy import SparseLinearPolicy

# An observation (D,) -> an action (A,) and the number of the expert that chose it.
Act = Callable[[np.ndarray], tuple[np.ndarray, int]]

# Where the episodes begin that neither training nor trees have seen: what is compared is compared on the same ones.
TEST_SEED = 50_000


@dataclass(frozen=True)
class Evaluation:
    """Returns of the episodes, their lengths, and each expert's share (E,) of all steps."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    shares_E: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean return of an episode."""
        return float(np.mean(self.returns))


def evaluate(policy: SparseLinearPolicy, environment: str, episodes: int = 20, seed: int = 0) -> Evaluation:
    """Let the policy's mean action act; episodes begin where `seed`, `seed` + 1, ... say."""
    return drive(acting(policy), environment, policy.num_experts, episodes, seed)


def acting(policy: SparseLinearPolicy) -> Act:
    """The policy as a plain function of one observation."""

    def act(x_D: np.ndarray) -> tuple[np.ndarray, int]:
        with torch.no_grad():
            x_1D = torch.from_numpy(x_D.astype(np.float32)).unsqueeze(0)
            return policy(x_1D)[0].numpy(), int(policy.route(x_1D).logits_TE.argmax())

    return act


def drive(act: Act, environment: str, experts: int, episodes: int, seed: int) -> Evaluation:
    """Let any function of the observation act."""
    world = make(environment)
    chosen_E = np.zeros(experts)
    returns, lengths = [], []
    for episode in range(episodes):
        x_D, _ = world.reset(seed=seed + episode)
        earned, length, over = 0.0, 0, False
        while not over:
            action_A, expert = act(x_D)
            x_D, reward, ended, cut, _ = world.step(action_A)
            chosen_E[expert] += 1
            earned, length, over = earned + float(reward), length + 1, ended or cut
        returns.append(earned)
        lengths.append(length)
    world.close()
    return Evaluation(tuple(returns), tuple(lengths), tuple((chosen_E / chosen_E.sum()).tolist()))
