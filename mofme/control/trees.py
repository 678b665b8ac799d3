"""Decision trees that choose the expert in the router's place, distilled with DAgger (Ross et al. 2011).

A tree fitted on the policy's own states errs where its errors lead it, so in every round the tree drives, the router
says what it would have chosen there, and the tree is fitted again on all that was seen. The tree chooses; the chosen
expert then acts as it would have, with the probability that the router gives it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.tree import DecisionTreeClassifier, export_text

from mofme.control.environments import spaces
from mofme.control.evaluation import Act, Evaluation, acting, drive
from mofme.control.explanation import FloatArray, visit
from mofme.control.policy import SparseLinearPolicy

_ROUNDS = 6
_EPISODES = 4


@dataclass(frozen=True)
class DistilledTree:
    """A tree, how often it chooses as the router (on states that the tree itself reaches), and what it earns."""

    tree: DecisionTreeClassifier
    depth: int
    fidelity: float
    evaluation: Evaluation

    def text(self, environment: str) -> str:
        """The tree in words: which comparison of which observation leads to which expert."""
        words: str = export_text(self.tree, feature_names=list(spaces(environment).observations))
        return words.replace("class:", "expert")


def tree_acting(tree: DecisionTreeClassifier, policy: SparseLinearPolicy) -> Act:
    """The policy with the tree in the router's place."""
    weights_EFD = policy.experts_EFD.detach().double().numpy()
    router_ED = policy.router_ED.detach().double().numpy()
    low_A, high_A = policy.low_A.double().numpy(), policy.high_A.double().numpy()
    actions = len(low_A)

    def act(x_D: np.ndarray) -> tuple[np.ndarray, int]:
        expert = int(tree.predict(np.asarray(x_D)[None])[0])
        offset_D = np.append(x_D, 1.0)
        odds_E = np.exp(router_ED @ offset_D - (router_ED @ offset_D).max())
        mean_A = odds_E[expert] / odds_E.sum() * (weights_EFD[expert, :actions] @ offset_D)
        return (low_A + high_A) / 2 + (high_A - low_A) / 2 * np.tanh(mean_A), expert

    return act


def distil(
    policy: SparseLinearPolicy, environment: str, depth: int, seed: int = 0, episodes: int = 20
) -> DistilledTree:
    """The best of several rounds by what it earns on episodes of its own; measured on `episodes` others."""
    seen = visit(acting(policy), environment, _EPISODES, seed)
    x_TD, expert_T = seen.x_TD, seen.expert_T
    tries: list[tuple[float, DecisionTreeClassifier]] = []
    for number in range(_ROUNDS):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(x_TD, expert_T)
        begin = seed + (number + 1) * _EPISODES
        act = tree_acting(tree, policy)
        reached_TD = visit(act, environment, _EPISODES, begin).x_TD
        earned = drive(act, environment, policy.num_experts, _EPISODES, begin).mean
        tries.append((earned, tree))
        x_TD = np.concatenate([x_TD, reached_TD])
        expert_T = np.concatenate([expert_T, _chosen(policy, reached_TD)])
    _, best = max(tries, key=lambda one: one[0])
    return _measured(best, policy, environment, depth, episodes, seed=seed + 1000)


def _measured(
    tree: DecisionTreeClassifier, policy: SparseLinearPolicy, environment: str, depth: int, episodes: int, seed: int
) -> DistilledTree:
    act = tree_acting(tree, policy)
    reached = visit(act, environment, _EPISODES, seed)
    fidelity = float((_chosen(policy, reached.x_TD) == reached.expert_T).mean())
    return DistilledTree(tree, depth, fidelity, drive(act, environment, policy.num_experts, episodes, seed))


def distil_depths(
    policy: SparseLinearPolicy, environment: str, depths: Sequence[int] = (2, 3, 4, 5, 6), seed: int = 0
) -> list[DistilledTree]:
    """One tree for each depth."""
    return [distil(policy, environment, depth, seed) for depth in depths]


def _chosen(policy: SparseLinearPolicy, x_TD: FloatArray) -> np.ndarray:
    with torch.no_grad():
        chosen_T: np.ndarray = policy.route(torch.from_numpy(x_TD).float()).logits_TE.argmax(dim=-1).numpy()
    return chosen_T
