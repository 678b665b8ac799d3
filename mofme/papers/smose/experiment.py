"""Trained policies beside the paper's returns and beside plain linear ones, trained the same way."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mofme.core.weights import load_card
from mofme.errors import ModelError
from mofme.files import CARD_FILE
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import students_mean
from mofme.papers.smose import judge
from mofme.papers.smose.environments import ENVIRONMENTS, PUBLISHED, TEST_SEED, Evaluation
from mofme.papers.smose.policy import evaluate, load_policy
from mofme.papers.smose.trees import DistilledTree, distil

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


def measure(
    folder: Path, episodes: int = 20, trees: bool = True, report: Callable[[str], None] = lambda _: None
) -> list[Measured]:
    """Measure every policy below `folder`, and trees in place of its router. Raises ModelError if there is none."""
    found = sorted(path.parent for path in folder.rglob(CARD_FILE))
    if not found:
        raise ModelError(f"{folder} holds no policy: train some with `python -m mofme control train`")
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
    rows = []
    for name in ENVIRONMENTS:
        mixtures, linear = groups.get((name, True), []), groups.get((name, False), [])
        if mixtures:
            rows.append(Row("returns", name, _figures(name, mixtures, linear)))
    for name in ENVIRONMENTS:
        for depth, figures in _trees(groups.get((name, True), [])).items():
            rows.append(Row("trees", f"{name}, depth {depth}", figures))
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
    figures = {
        "return": returns,
        "the paper's": Figure(PUBLISHED[name]),
        "reached, %": Figure(100 * reached(name, returns.value)),
        "steps": Figure(max(one.steps for one in mixtures)),
        "seeds": Figure(len(mixtures)),
        "experts in use": Figure(
            float(np.mean([sum(share >= _LEAST_SHARE for share in one.evaluation.shares_E) for one in mixtures]))
        ),
    }
    if linear:
        figures |= {
            "linear policy": _mean(linear),
            "its steps": Figure(max(one.steps for one in linear)),
            "its seeds": Figure(len(linear)),
        }
    return figures


def reached(name: str, earned: float) -> float:
    """Share of the paper's return; where returns are below zero, how many times its loss fits into ours."""
    published = PUBLISHED[name]
    return earned / published if published > 0 else published / min(earned, -1e-9)


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
            "kept, %": students_mean(np.array([100 * kept(one.evaluation, tree.evaluation) for one, tree in pairs])),
        }
        for depth, pairs in by_depth.items()
    }


def kept(policy: Evaluation, tree: Evaluation) -> float:
    """Share of a policy's return that its tree earns; of losses, the policy's over the tree's."""
    return tree.mean / policy.mean if policy.mean > 0 else policy.mean / min(tree.mean, -1e-9)
