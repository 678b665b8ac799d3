"""Training a policy in one environment: it can be stopped at any time and goes on where it was saved."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mofme.core.training import bf16_pays, fill_moments, moments_of, part_of
from mofme.core.weights import load_card
from mofme.files import CARD_FILE, atomic_file
from mofme.measure.study import Study
from mofme.papers.smose.environments import Evaluation, make, spaces
from mofme.papers.smose.policy import SparseLinearPolicy, evaluate, save_policy
from mofme.papers.smose.sac import BATCH, Critics, Learner, Replay, Standardisation

_RANDOM_STEPS = 10_000  # acted at random, to learn from and to standardise observations by
_STATE, _MEMORY, _CURVE = "state.safetensors", "memory.safetensors", "curve.jsonl"


@dataclass(frozen=True)
class ControlPlan:
    """What to learn, for how many steps of the robot. One expert makes a plain linear policy, the control."""

    environment: str
    out: Path
    steps: int = 1_000_000
    seed: int = 0
    experts: int = 8
    balance: float = 0.1
    check_steps: int = 25_000
    check_episodes: int = 5


@dataclass(frozen=True)
class ControlProgress:
    """Where training is: steps done of how many, steps a second, and the return of the last check."""

    step: int
    steps: int
    rate: float
    checked: Evaluation


@torch.random.fork_rng(devices=[])  # draws of the caller are left as they would be
def train(
    plan: ControlPlan,
    report: Callable[[ControlProgress], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> SparseLinearPolicy:
    """Learn until `plan.steps`, over all resumed runs together; returns the last policy, of raw observations.

    The best policy of all checks so far is what lies in `plan.out`, with its card: later ones may be far worse.
    Raises ModelError if `plan.out` holds a run of another plan.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    # The steps may be raised later; a run that learnt on raw observations cannot go on with standardised ones.
    told = {key: value for key, value in asdict(plan).items() if key not in ("out", "steps")}
    Study(plan.out, {**told, "observations": "standardised"}, note="plan")
    torch.manual_seed(plan.seed)
    generator = np.random.default_rng(plan.seed)
    environment = make(plan.environment)
    reach_2A = environment.action_space.low, environment.action_space.high
    learner = fresh_learner(plan)
    memory = Replay(plan.steps, environment.observation_space.shape[0], environment.action_space.shape[0])
    step = _resume(plan.out, learner, memory)
    # A resumed run goes on with new episodes and new noise instead of repeating those of its beginning.
    torch.manual_seed(plan.seed + step)
    generator = np.random.default_rng((plan.seed, step))
    x_D, _ = environment.reset(seed=plan.seed + step)
    standard = _standardisation(memory)
    started, first = time.monotonic(), step
    while step < plan.steps and not stopped():
        action_A = _act(learner.policy, x_D, standard) if standard else generator.uniform(*reach_2A).astype(np.float32)
        next_D, reward, ended, cut, _ = environment.step(action_A)
        memory.add(x_D, action_A, float(reward), next_D, bool(ended))
        x_D = environment.reset()[0] if ended or cut else next_D
        step += 1
        if standard:
            learner.learn(standard.batch(memory.sample(BATCH, generator)))
        else:
            standard = _standardisation(memory)
        if step % plan.check_steps == 0 or step == plan.steps:
            rate = (step - first) / (time.monotonic() - started)
            checked = _check(plan, _deployed(learner, standard), learner, memory, step)
            if report is not None:
                report(ControlProgress(step, plan.steps, rate, checked))
    environment.close()
    return _deployed(learner, standard)


def fresh_learner(plan: ControlPlan) -> Learner:
    """Untrained networks for a plan, drawn from torch's global generator."""
    names = spaces(plan.environment)
    observations, actions = len(names.observations), len(names.actions)
    policy = SparseLinearPolicy(observations, torch.tensor(names.low_A), torch.tensor(names.high_A), plan.experts)
    half = bf16_pays(torch.device("cpu"))
    return Learner(
        policy, Critics(observations, actions, half), Critics(observations, actions, half), balance=plan.balance
    )


def _act(policy: SparseLinearPolicy, x_D: np.ndarray, standard: Standardisation) -> np.ndarray:
    with torch.no_grad():
        x_1D = torch.from_numpy(x_D.astype(np.float32)).unsqueeze(0)
        action_A: np.ndarray = policy.sample(standard(x_1D)).action_TA[0].numpy()
    return action_A


def _standardisation(memory: Replay) -> Standardisation | None:
    """None until enough is remembered."""
    return Standardisation.of(memory.observations(_RANDOM_STEPS)) if memory.steps >= _RANDOM_STEPS else None


def _deployed(learner: Learner, standard: Standardisation | None) -> SparseLinearPolicy:
    return standard.raw_policy(learner.policy) if standard else learner.policy


def _check(plan: ControlPlan, policy: SparseLinearPolicy, learner: Learner, memory: Replay, step: int) -> Evaluation:
    checked = evaluate(policy, plan.environment, plan.check_episodes, seed=10_000 + plan.seed)
    if checked.mean >= _best_return(plan.out):
        training = {"steps": step, "seed": plan.seed, "balance": plan.balance}
        save_policy(plan.out, policy, plan.environment, training, {"return": checked.mean})
    line = {"step": step, "return": checked.mean, "shares": [round(share, 4) for share in checked.shares_E]}
    with (plan.out / _CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    memory.save(plan.out / _MEMORY)
    with atomic_file(plan.out / _STATE) as state:
        state.write(save(_state(learner, step)))
    return checked


def _best_return(folder: Path) -> float:
    if not (folder / CARD_FILE).is_file():
        return -math.inf
    return float(load_card(folder).metrics["return"])


def _state(learner: Learner, step: int) -> dict[str, Tensor]:
    """Everything to go on from, as tensors with names."""
    state = {"step": torch.tensor(step), "log_alpha": learner.log_alpha.detach()}
    for name in ("policy", "critics", "targets"):
        state |= {f"{name}.{key}": value.clone() for key, value in getattr(learner, name).state_dict().items()}
    for name, optimizer in learner.optimizers.items():
        state |= {f"adam.{name}.{key}": value.clone() for key, value in moments_of(optimizer).items()}
    return state


def _resume(folder: Path, learner: Learner, memory: Replay) -> int:
    if not (folder / _STATE).is_file():
        return 0
    state = load_file(folder / _STATE)
    memory.load(folder / _MEMORY)
    with torch.no_grad():
        learner.log_alpha.copy_(state["log_alpha"])
    for name in ("policy", "critics", "targets"):
        getattr(learner, name).load_state_dict(part_of(state, name))
    for name, optimizer in learner.optimizers.items():
        fill_moments(optimizer, part_of(state, f"adam.{name}"))
    return int(state["step"])
