"""The figures of a comparison: what each router is worth, costs, saves and knows, with intervals."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mofme.language.llm_routing.baselines import BestSingle, Hull, Oracle, TaskTable
from mofme.language.llm_routing.comparison import Comparison
from mofme.language.llm_routing.curve import Curve, cost_to_reach, curve_of, quality_at
from mofme.language.llm_routing.readings import DRAWS, Reading, as_figure, draw_weights, read
from mofme.language.llm_routing.table import FloatArray
from mofme.language.llm_routing.within_task import WithinTask, within_tasks
from mofme.language.llm_routing.worth_routing import Worth
from mofme.measure.result import Figure

BUDGETS = (0.1, 0.25, 0.5, 1.0)  # of what the best single model costs
TARGETS = (0.95, 0.99, 1.0)  # of the quality that the best single model has
CONTROLS = (Hull.name, BestSingle.name, TaskTable.name)
UNTRAINED = (Hull.name, BestSingle.name, Oracle.name)


@dataclass(frozen=True)
class Measured:
    """All that was measured on one table; times are milliseconds of processor time, one for each prompt."""

    comparison: Comparison
    worth: Worth
    readings: Mapping[str, Reading]
    within: Mapping[str, Sequence[WithinTask]]
    embedding_ms: FloatArray
    choice_ms: Mapping[str, FloatArray]

    def aiq(self, router: str) -> Figure | None:
        return as_figure(self.readings[router].aiq_TB)

    def gain(self, router: str, control: str) -> Figure | None:
        """What a router has above a control: quality for as much money as the best single model costs, or else AIQ."""
        one, other = self.readings[router], self.readings[control]
        if control == BestSingle.name:
            return as_figure(one.quality_TB - other.quality_TB)
        return as_figure(one.aiq_TB - other.aiq_TB)

    def quality_for(self, router: str, share: float) -> Figure | None:
        """Quality for this share of what the best single model costs."""
        return self._over_trials(router, lambda curve, best: quality_at(curve, share * float(best.cost_S[0])))

    def cost_of(self, router: str, share: float) -> Figure | None:
        """Dollars a prompt for this share of the best single model's quality; None if some split never gets there."""
        return self._over_trials(router, lambda curve, best: cost_to_reach(curve, share * float(best.quality_S[0])))

    def _over_trials(self, router: str, read_off: Callable[[Curve, Curve], float]) -> Figure | None:
        values = []
        for trial in self.comparison.trials:
            truth = self.comparison.table.rows(trial.test_n)
            best = curve_of(trial.choices[BestSingle.name], truth)
            values.append(read_off(curve_of(trial.choices[router], truth), best))
        return as_figure(np.array(values)[:, None])


def measure(
    comparison: Comparison,
    worth: Worth,
    embedding_ms: FloatArray,
    choice_ms: Mapping[str, FloatArray],
    judged: Sequence[str],
    seed: int = 0,
    draws: int = DRAWS,
) -> Measured:
    """Read all figures off a comparison; within tasks, those of the routers `judged`."""
    weight_BN = draw_weights(comparison, draws, seed)
    within = {name: within_tasks(comparison, name, TaskTable.name, weight_BN) for name in judged}
    return Measured(comparison, worth, read(comparison, weight_BN), within, embedding_ms, choice_ms)


def as_plain(measured: Measured) -> dict[str, Any]:
    """For JSON: the figures of every router under its name in small letters, the interval of each beside it."""
    table = measured.comparison.table
    return {
        "table": table.name,
        "prompts": len(table),
        "models": table.models,
        "repairs": table.repairs,
        "splits": len(measured.comparison.trials),
        "can_pay": measured.worth.can_pay,
        "worth": {**asdict(measured.worth), "verdict": measured.worth.verdict},
        "routers": {key_of(name): _router(measured, name) for name in measured.comparison.routers},
        "within_tasks": {key_of(name): [asdict(line) for line in lines] for name, lines in measured.within.items()},
    }


def key_of(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _router(measured: Measured, name: str) -> dict[str, Any]:
    figures = {"aiq": measured.aiq(name), "quality_for_best_single_cost": measured.quality_for(name, 1.0)}
    figures |= {f"cost_of_{share:.0%}_quality".replace("%", ""): measured.cost_of(name, share) for share in TARGETS}
    figures |= {f"gain_over_{key_of(control)}": measured.gain(name, control) for control in CONTROLS if control != name}
    plain: dict[str, Any] = {}
    for key, figure in figures.items():
        plain[key] = figure and figure.value
        plain[f"{key}_interval"] = figure and [figure.low, figure.high]
    choice = float(np.median(measured.choice_ms[name]))
    plain["milliseconds"] = choice
    plain["milliseconds_with_embedding"] = choice + float(np.median(measured.embedding_ms))
    return plain
