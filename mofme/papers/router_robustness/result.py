"""Robustness of routers as tables; what they say of DSC's claims is in `claim`."""

from collections import Counter
from collections.abc import Mapping, Sequence

from mofme.measure.result import Figure, Result, Row
from mofme.papers.router_robustness.assessment import ALL, Assessment
from mofme.papers.router_robustness.claim import CATEGORY_OVER, judge
from mofme.papers.router_robustness.experiment import Rules, Study
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe
from mofme.papers.router_robustness.routers import BetweenTwo, Figures

ROOM = "llm_robustness"
PAPER = "DSC, How Robust Are Router-LLMs? (arXiv 2504.07113)"
CLAIM = (
    "routers trained on preferences decide by category instead of difficulty: all coding and mathematics goes to the "
    "strong model, jailbreaks go to weak ones, and privacy and backdoors go unexamined"
)
INTERVAL = "95 % bootstrap over the prompts, requests or sentences; decisions are means over the seeds"
ENOUGH = 20  # prompts of a source


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
    tables = {
        "jailbreaks that succeed, %": study.exposures,
        "jailbreaks that succeed behind a guard, %": study.guarded,
        "private data, %": study.privacy,
        **{f"backdoor to the {target} model, %": lines for target, lines in study.damage.items()},
    }
    rows += _rows_of({f"{title}: {what}": lines for what, lines in tables.items()})
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


def _rows_of_waste(title: str, waste: Mapping[str, Mapping[str, Figures]]) -> list[Row]:
    return [
        Row(f"{title}: waste", router, figures)
        if group == ALL
        else Row(f"{title}: waste by kind of task", f"{group}, {router}", figures)
        for router, groups in waste.items()
        for group, figures in groups.items()
    ]


def _rows_of_rules(rules: Rules) -> list[Row]:
    tables = {
        "guards against jailbreaks, % stopped": rules.guards,
        "rule for private data, % found": rules.detections,
    }
    return _rows_of(tables)


def _rows_of(tables: Mapping[str, Mapping[str, Figures]]) -> list[Row]:
    return [Row(table, name, figures) for table, lines in tables.items() for name, figures in lines.items()]


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
