"""The comparison in words: first where no router beats a control, then what CARROT gains on every table."""

from collections.abc import Sequence

from mofme.language.llm_routing.baselines import BestSingle, Hull, TaskTable
from mofme.language.llm_routing.comparison_figures import CONTROLS, UNTRAINED, Measured
from mofme.measure.result import Figure

TITLES = {"routerbench": "RouterBench", "llmrouter": "LLMRouter", "mmlu_pro": "MMLU-Pro", "routellm": "RouteLLM"}
JUDGED = "carrot"
WHAT = {
    Hull.name: "the hull of single models",
    BestSingle.name: "the best single model for the same money",
    TaskTable.name: "the task table",
}


def title(measured: Measured) -> str:
    name = measured.comparison.table.name
    return TITLES.get(name, name)


def verdict(tables: Sequence[Measured]) -> str:
    """A gain is claimed only where its interval is above zero."""
    unbeaten = []
    for control in CONTROLS:
        where = [title(measured) for measured in tables if not winners(measured, control)]
        if where:
            unbeaten.append(f"{WHAT[control]} on {', '.join(where)}")
    first = [f"No router beats {'; none '.join(unbeaten)}."] if unbeaten else []
    return " ".join([*first, *(_carrot(measured) for measured in tables), *_beyond_the_task(tables)])


def winners(measured: Measured, control: str) -> list[str]:
    """The trained routers whose gain over the control is above zero, its interval included."""
    trained = [name for name in measured.comparison.routers if name not in (*UNTRAINED, control)]
    return [name for name in trained if (gain := measured.gain(name, control)) and gain.side() > 0]


def _beyond_the_task(tables: Sequence[Measured]) -> list[str]:
    """What the judged router's choices are worth within tasks, beside the same choices dealt out at random."""
    lost = {title(measured): lines[-1].lost for measured in tables if (lines := measured.within[JUDGED])}
    figures = [f"{where} {figure.text(signed=True)}" for where, figure in lost.items() if figure]
    return [f"Within a task, what it knows of each prompt is worth in AIQ: {', '.join(figures)}."] if figures else []


def _carrot(measured: Measured) -> str:
    """One sentence on the judged router: its AIQ, and whether it is above, below or level with each control."""
    phrases = []
    for control in CONTROLS:
        if gain := measured.gain(JUDGED, control):
            relation = {1: "above", 0: "level with", -1: "below"}[gain.side()]
            what = "in quality " if control == BestSingle.name else ""
            phrases.append(f"{what}{relation} {WHAT[control]} ({gain.text(signed=True).replace(' (', ', ')}")
    aiq = measured.aiq(JUDGED)
    return f"{title(measured)}: CARROT's AIQ is {Figure(aiq.value).text() if aiq else 'unknown'}, {'; '.join(phrases)}."
