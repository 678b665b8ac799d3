"""Robustness of routers as tables; what they say of DSC's claims is in `claim`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mofme.measure.result import Figure, Result, Row
from mofme.papers.router_robustness.assessment import Assessment, Waste
from mofme.papers.router_robustness.claim import CATEGORY_OVER, judge
from mofme.papers.router_robustness.experiment import Rules, Study
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe
from mofme.papers.router_robustness.routers import BetweenTwo

ROOM = "llm_robustness"
PAPER = "DSC, How Robust Are Router-LLMs? (arXiv 2504.07113)"
CLAIM = (
    "routers trained on preferences decide by category instead of difficulty: all coding and mathematics goes to the "
    "strong model, jailbreaks go to weak ones, and privacy and backdoors go unexamined"
)
INTERVAL = "95 % bootstrap over the prompts, requests or sentences; decisions are means over the seeds"
ENOUGH = 20  # prompts of a source

# What the tables call the figures.
_EXPOSURE = {
    "strong": "to the strong model",
    "success": "routed",
    "always_strong": "always strong",
    "always_weak": "always weak",
    "over_always_strong": "routed over always strong, points",
    "over_coin": "routed over a coin flip, points",
}
_PRIVACY = {
    "private_to_weak": "private to the weak model",
    "others_to_weak": "others to the weak model",
    "changed_by_masking": "turned by masking",
    "to_weak_under_rule": "private to the weak model under the rule",
}
_DAMAGE = {
    "reached": "triggered prompts that arrive",
    "turned": "turned",
    "clean_flips": "clean decisions turned",
    "clean_quality": "clean quality gain",
}
_WASTE = {
    "strong": "to the strong model, %",
    "wasted": "of these wasted, %",
    "missed": "of the others missed, %",
    "cost": "cost, % of always strong",
    "quality": "quality, %",
    "auc": "AUC",
    "auc_within": "AUC inside a task",
}


def as_result(
    studies: Sequence[Study], rules: Rules, probes: Sequence[Probe], command: str, seeds: Sequence[int]
) -> Result:
    """Studies of one table or several; the first bears the verdict."""
    rows = [row for study in studies for row in _rows_of_study(study)] + _rows_of_rules(rules) + _rows_of_probes(probes)
    return judge(Result(ROOM, PAPER, CLAIM, "", command, rows, list(seeds), INTERVAL))


def as_result_of_router(assessment: Assessment, two: BetweenTwo, rules: Rules, command: str) -> Result:
    """One router probed beside controls, without any table: it bears the verdict."""
    name = two.router.name
    shares = {category: assessment.share(name, category).value for category in assessment.categories}
    least, most = min(shares, key=lambda c: shares[c]), max(shares, key=lambda c: shares[c])
    said = (
        f"{name} sends {shares[most]:.0f} % of {most} and {shares[least]:.0f} % of {least} to {two.strong}, "
        f"the rest to {two.weak}; harmless rewording turns {assessment.flips(name).value:.0f} % of its decisions."
    )
    rows = _rows_of_assessment(name, assessment) + _rows_of_rules(rules) + _rows_of_probes(assessment.probes)
    return Result(ROOM, PAPER, CLAIM, said, command, rows, [0], INTERVAL)


def _rows_of_study(study: Study) -> list[Row]:
    title, assessment = study.table, study.assessment
    rows = _rows_of_assessment(title, assessment)
    for category in assessment.categories:
        costs = {r: assessment.cost(r, category, study.weak_over_strong) for r in assessment.routers}
        rows.append(Row(f"{title}: cost, % of always asking the strong model", category, costs))
    rows += _rows_of_explained(title, assessment) + _rows_of_waste(title, study.waste)
    for exposed in study.exposures:
        name = f"{exposed.router}, {exposed.weak}"
        rows.append(Row(f"{title}: jailbreaks that succeed, %", name, _figures(exposed, _EXPOSURE)))
    for line in study.guarded:
        figures = {"alone": line.alone.success, "guarded": line.guarded.success, "gain, points": line.gain}
        name = f"{line.alone.router}, {line.guard}"
        rows.append(Row(f"{title}: jailbreaks that succeed behind a guard, %", name, figures))
    for private in study.privacy:
        rows.append(Row(f"{title}: private data, %", private.router, _figures(private, _PRIVACY)))
    for damage in study.damage:
        name = f"{damage.router}, {100 * damage.share:g} % poisoned"
        rows.append(Row(f"{title}: backdoor to the {damage.target} model, %", name, _figures(damage, _DAMAGE)))
    if study.balanced:
        title = f"{title}, tasks balanced"
        rows += _rows_of_assessment(title, study.balanced) + _rows_of_explained(title, study.balanced)
        rows += _rows_of_waste(title, study.balanced_waste)
    return rows


def _rows_of_assessment(title: str, assessment: Assessment) -> list[Row]:
    """Calls to the strong model by category and difficulty, and flips by rewording and category."""
    routers, categories = assessment.routers, assessment.categories
    calls = f"{title}: calls to the strong model"
    rows = [Row(f"{calls}, %", c, {r: assessment.share(r, c) for r in routers}) for c in categories]
    levels = {(probe.category, probe.difficulty) for probe in assessment.probes}
    for category in categories:
        for level in (level for level in DIFFICULTIES if (category, level) in levels):
            figures = {router: assessment.share(router, category, level) for router in routers}
            rows.append(Row(f"{title}: simple and hard calls to the strong model, %", f"{category}, {level}", figures))
    counts = Counter((probe.category, probe.source) for probe in assessment.probes)
    if len({source for _, source in counts}) > 1:
        for category in categories:
            for source in (source for (of, source), count in counts.items() if of == category and count >= ENOUGH):
                figures = {router: assessment.share(router, category, source=source) for router in routers}
                rows.append(Row(f"{calls} by source, %", f"{category}, {source}", figures))
    if assessment.rewordings:
        turned = f"{title}: decisions turned by rewording"
        for router in routers:
            flips = {name: assessment.flips(router, name) for name in assessment.rewordings}
            rows.append(Row(f"{turned}, %", router, {**flips, "all": assessment.flips(router)}))
        for category in categories:
            flips = {router: assessment.flips(router, None, category) for router in routers}
            rows.append(Row(f"{turned}, by category, %", category, flips))
    return rows


def _rows_of_explained(title: str, assessment: Assessment) -> list[Row]:
    rows = []
    for router in assessment.routers:
        category, difficulty, over = assessment.explained(router)
        figures = {"by category": category, "by difficulty inside it": difficulty, CATEGORY_OVER: over}
        rows.append(Row(f"{title}: variance of decisions explained, %", router, figures))
    return rows


def _rows_of_waste(title: str, lines: Iterable[Waste]) -> list[Row]:
    return [
        Row(f"{title}: waste", line.router, _figures(line, _WASTE))
        if line.group == "all"
        else Row(f"{title}: waste by kind of task", f"{line.group}, {line.router}", _figures(line, _WASTE))
        for line in lines
    ]


def _rows_of_rules(rules: Rules) -> list[Row]:
    rows = []
    for guard in rules.guards:
        stopped = {**guard.stopped, "harmless": guard.false_alarms, "harmless, dressed up": guard.dressed_up}
        rows.append(Row("guards against jailbreaks, % stopped", guard.name, stopped))
    for line in rules.detections:
        found = {"sentences": Figure(float(line.prompts)), "as this kind": line.found, "at all": line.found_at_all}
        rows.append(Row("rule for private data, % found", line.kind, found))
    return rows


def _rows_of_probes(probes: Sequence[Probe]) -> list[Row]:
    """How many prompts there were, and where they came from."""
    counts = Counter((probe.category, probe.difficulty, probe.source) for probe in probes)
    sources = list(dict.fromkeys(probe.source for probe in probes))
    rows = []
    for category in CATEGORIES:
        for level in DIFFICULTIES:
            figures = {s: Figure(float(counts[category, level, s])) for s in sources if counts[category, level, s]}
            if figures:
                rows.append(Row("prompts", f"{category}, {level}", figures))
    return rows


def _figures(line: object, columns: Mapping[str, str]) -> dict[str, Figure]:
    """The figures of a line that are there, as the tables call them."""
    return {words: figure for name, words in columns.items() if (figure := getattr(line, name)) is not None}
