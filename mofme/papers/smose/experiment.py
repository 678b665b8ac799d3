"""Policies trained in an environment, and beside the paper's returns and plain linear ones, trained the same way.

Training can be stopped at any time and goes on where it was saved.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from mofme.core.training import bf16_pays, fill_moments, moments_of, part_of
from mofme.core.weights import check_replaceable, load_card
from mofme.errors import ModelError
from mofme.files import CARD_FILE, atomic_file
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import students_mean
from mofme.measure.study import Study
from mofme.papers.smose import PUBLISHED, judge
from mofme.papers.smose.environments import ENVIRONMENTS, TEST_SEED, Evaluation, make, spaces
from mofme.papers.smose.policy import NET, SparseLinearPolicy, evaluate, load_policy, save_policy
from mofme.papers.smose.sac import BATCH, Critics, Learner, Replay, Standardisation
from mofme.papers.smose.trees import DistilledTree, distil

_RESUMED = 10_000_000  # far from the seeds of checks and of tests, which training never sees
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
def train(plan: ControlPlan, report: Callable[[ControlProgress], None] = lambda _: None) -> SparseLinearPolicy:
    """Learn until `plan.steps`, over all resumed runs together; returns the last policy, of raw observations.

    The best policy of all checks so far is what lies in `plan.out`, with its card: later ones may be far worse.
    Raises ModelError if `plan.out` holds a run of another plan, or another model.
    """
    check_replaceable(plan.out, NET)
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
    x_D, _ = environment.reset(seed=plan.seed + step + (_RESUMED if step else 0))
    standard = _standardisation(memory)
    started, first = time.monotonic(), step
    while step < plan.steps:
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
            report(ControlProgress(step, plan.steps, rate, checked))
    environment.close()
    return _deployed(learner, standard)


def fresh_learner(plan: ControlPlan) -> Learner:
    """Untrained networks for a plan, drawn from torch's global generator."""
    names = spaces(plan.environment)
    sizes = len(names.observations), len(names.actions), bf16_pays(torch.device("cpu"))
    policy = SparseLinearPolicy(sizes[0], torch.tensor(names.low_A), torch.tensor(names.high_A), plan.experts)
    return Learner(policy, Critics(*sizes), Critics(*sizes), plan.balance)


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
    if not (plan.out / CARD_FILE).is_file() or checked.mean >= load_card(plan.out).metrics["return"]:
        training = {"steps": step, "seed": plan.seed, "balance": plan.balance}
        save_policy(plan.out, policy, plan.environment, training, {"return": checked.mean})
    line = {"step": step, "return": checked.mean, "shares": [round(share, 4) for share in checked.shares_E]}
    with (plan.out / _CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    memory.save(plan.out / _MEMORY)
    with atomic_file(plan.out / _STATE) as state:
        state.write(save(_state(learner, step)))
    return checked


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


_DEPTHS = range(1, 7)  # of trees
_LEAST_SHARE = 0.01  # an expert in use acts in at least so many of the steps


@dataclass(frozen=True)
class Measured:
    """One policy, measured: its environment, experts, seed and steps of training."""

    environment: str
    experts: int
    seed: int
    steps: int
    evaluation: Evaluation
    trees: Sequence[DistilledTree]


def _check_comparable(found: Sequence[Path]) -> None:
    first: dict[tuple[str, bool], tuple[object, Path]] = {}
    seeds: dict[tuple[str, bool, int], Path] = {}
    for place in found:
        policy, environment = load_policy(place)
        training, group = load_card(place).training, (environment, policy.num_experts > 1)
        # A linear policy has nothing to balance.
        how = (policy.num_experts, training.get("balance")) if policy.num_experts > 1 else 1
        same, other = first.setdefault(group, (how, place))
        if same != how:
            raise ModelError(f"{place} and {other} differ in experts or balance: measure them apart")
        if (twin := seeds.setdefault((*group, training["seed"]), place)) != place:
            raise ModelError(f"{place} and {twin} are of the same seed: leave one of them out")
    if not any(mixture for _, mixture in first):
        raise ModelError("there are linear policies only, which mixtures are compared with: add one of several experts")


def measure(
    folder: Path, episodes: int = 20, trees: bool = True, report: Callable[[str], None] = lambda _: None
) -> list[Measured]:
    """Measure every policy below `folder`, and trees in place of its router.

    Raises ModelError if there is none, or no mixture, and where two differ in more than their seed or not even in that.
    """
    found = sorted(path.parent for path in folder.rglob(CARD_FILE))
    if not found:
        raise ModelError(f"{folder} holds no policy: train some with `python -m mofme control train`")
    _check_comparable(found)
    measured = []
    for place in found:
        policy, environment = load_policy(place)
        training = load_card(place).training
        evaluation = evaluate(policy, environment, episodes, TEST_SEED)
        depths = _DEPTHS if trees and policy.num_experts > 1 else ()
        distilled = [distil(policy, environment, depth, episodes=episodes) for depth in depths]
        measured.append(
            Measured(environment, policy.num_experts, training["seed"], training["steps"], evaluation, distilled)
        )
        report(f"{environment}, {policy.num_experts} experts, seed {training['seed']}: {evaluation.mean:,.1f}")
    return measured


def as_result(measured: Sequence[Measured], command: str) -> Result:
    """Everything in the project's one schema."""
    groups: dict[tuple[str, bool], list[Measured]] = defaultdict(list)
    for one in measured:
        groups[one.environment, one.experts > 1].append(one)
    mixtures = {name: groups[name, True] for name in ENVIRONMENTS if (name, True) in groups}
    rows = [Row("returns", name, _figures(name, found, groups[name, False])) for name, found in mixtures.items()]
    for name, found in mixtures.items():
        rows += [Row("trees", f"{name}, depth {depth}", figures) for depth, figures in _trees(found).items()]
    result = Result(
        room="control",
        paper="SMOSE (arXiv 2412.13053)",
        claim="one linear expert at a time controls a robot nearly as well as a black box, and can be read",
        verdict="",
        command=command,
        rows=rows,
        seeds=sorted({one.seed for one in measured}),
        interval="95 %, Student's over the seeds of training",
        machine=this_machine(threads=1),
    )
    return judge(result)


def _figures(name: str, mixtures: Sequence[Measured], linear: Sequence[Measured]) -> Mapping[str, Figure]:
    returns = _mean(mixtures)
    in_use = [sum(share >= _LEAST_SHARE for share in one.evaluation.shares_E) for one in mixtures]
    figures = {
        "return": returns,
        "the paper's": Figure(PUBLISHED[name]),
        "reached, %": Figure(100 * share_of(PUBLISHED[name], returns.value)),
        "steps": Figure(max(one.steps for one in mixtures)),
        "seeds": Figure(len(mixtures)),
        "experts in use": Figure(float(np.mean(in_use))),
    }
    if linear:
        figures |= {
            "linear policy": _mean(linear),
            "its steps": Figure(max(one.steps for one in linear)),
            "its seeds": Figure(len(linear)),
        }
    return figures


def share_of(whole: float, earned: float) -> float:
    """What share of a return was earned; of losses, how many times the whole fits into what was lost."""
    return earned / whole if whole > 0 else whole / min(earned, -1e-9)


def _mean(measured: Sequence[Measured]) -> Figure:
    return students_mean(np.array([one.evaluation.mean for one in measured]))


def _trees(mixtures: Sequence[Measured]) -> Mapping[int, Mapping[str, Figure]]:
    """For each depth: fidelity, return, and the share of the policy's own return that is kept."""
    by_depth: dict[int, list[tuple[Measured, DistilledTree]]] = defaultdict(list)
    for one in mixtures:
        for tree in one.trees:
            by_depth[tree.depth].append((one, tree))
    return {
        depth: {
            "fidelity, %": students_mean(np.array([100 * tree.fidelity for _, tree in pairs])),
            "return": students_mean(np.array([tree.evaluation.mean for _, tree in pairs])),
            "kept, %": students_mean(
                np.array([100 * share_of(one.evaluation.mean, tree.evaluation.mean) for one, tree in pairs])
            ),
        }
        for depth, pairs in by_depth.items()
    }
