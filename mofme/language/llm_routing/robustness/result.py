"""Studies in the project's one schema of results."""

from collections import Counter
from collections.abc import Iterable, Sequence

from mofme.language.llm_routing.robustness.between_two import BetweenTwo
from mofme.language.llm_routing.robustness.claims import claims, verdict
from mofme.language.llm_routing.robustness.probes import CATEGORIES, DIFFICULTIES, Probe
from mofme.language.llm_routing.robustness.report import Assessment
from mofme.language.llm_routing.robustness.study import Rules, Study
from mofme.language.llm_routing.robustness.waste import Waste
from mofme.measure.result import Figure, Result, Row

ROOM = "llm_robustness"
PAPER = "How Robust Are Router-LLMs? (arXiv 2504.07113)"
CLAIM = (
    "routers trained on preferences decide by category instead of difficulty: all coding and mathematics goes to the "
    "strong model, jailbreaks go to weak ones, and privacy and backdoors go unexamined"
)
ENOUGH = 20  # prompts of a source
INTERVAL = "95 % bootstrap over the prompts, requests or sentences; decisions are means over the seeds"


def as_result(
    studies: Sequence[Study], rules: Rules, probes: Sequence[Probe], command: str, seeds: Sequence[int]
) -> Result:
    """Studies of one table or several; the first bears the verdict."""
    rows = [row for study in studies for row in _rows_of_study(study)] + _rows_of_rules(rules) + rows_of_probes(probes)
    return Result(ROOM, PAPER, CLAIM, verdict(studies), command, rows, list(seeds), INTERVAL)


def as_result_of_router(assessment: Assessment, two: BetweenTwo, rules: Rules, command: str) -> Result:
    """One router probed beside controls, without any table: it bears the verdict."""
    name = two.subject.name
    shares = {category: assessment.share(name, category).value for category in assessment.categories}
    least, most = min(shares, key=lambda c: shares[c]), max(shares, key=lambda c: shares[c])
    said = (
        f"{name} sends {shares[most]:.0f} % of {most} and {shares[least]:.0f} % of {least} to {two.strong}, "
        f"the rest to {two.weak}; harmless rewording turns {assessment.flips(name).value:.0f} % of its decisions."
    )
    rows = rows_of_assessment(name, assessment) + _rows_of_rules(rules) + rows_of_probes(assessment.probes)
    return Result(ROOM, PAPER, CLAIM, said, command, rows, [0], INTERVAL)


def rows_of_assessment(title: str, assessment: Assessment) -> list[Row]:
    """Calls to the strong model by category and difficulty, and flips by rewording and category."""
    routers = assessment.routers
    rows = [
        Row(f"{title}: calls to the strong model, %", category, {r: assessment.share(r, category) for r in routers})
        for category in assessment.categories
    ]
    rows += [
        Row(
            f"{title}: simple and hard calls to the strong model, %",
            f"{category}, {difficulty}",
            {router: assessment.share(router, category, difficulty) for router in routers},
        )
        for category in assessment.categories
        for difficulty in DIFFICULTIES
        if any((probe.category, probe.difficulty) == (category, difficulty) for probe in assessment.probes)
    ]
    counts = Counter((probe.category, probe.source) for probe in assessment.probes)
    if len({source for _, source in counts}) > 1:
        rows += [
            Row(
                f"{title}: calls to the strong model by source, %",
                f"{category}, {source}",
                {router: assessment.share_of(router, source, category) for router in routers},
            )
            for category in assessment.categories
            for (of, source), count in counts.items()
            if of == category and count >= ENOUGH
        ]
    if assessment.rewordings:
        for router in routers:
            figures = {name: assessment.flips(router, name) for name in assessment.rewordings}
            rows.append(
                Row(f"{title}: decisions turned by rewording, %", router, {**figures, "all": assessment.flips(router)})
            )
        rows += [
            Row(
                f"{title}: decisions turned by rewording, by category, %",
                category,
                {router: assessment.flips(router, None, category) for router in routers},
            )
            for category in assessment.categories
        ]
    return rows


def rows_of_probes(probes: Sequence[Probe]) -> list[Row]:
    """How many prompts there were, and where they came from."""
    counts = Counter((probe.category, probe.difficulty, probe.source) for probe in probes)
    sources = list(dict.fromkeys(probe.source for probe in probes))
    rows = []
    for category in CATEGORIES:
        for difficulty in DIFFICULTIES:
            figures = {
                s: Figure(float(counts[category, difficulty, s])) for s in sources if counts[category, difficulty, s]
            }
            if figures:
                rows.append(Row("prompts", f"{category}, {difficulty}", figures))
    return rows


def _rows_of_study(study: Study) -> list[Row]:
    title, assessment = study.table, study.assessment
    rows = [Row(f"{title}: claims", f"{c.words} ({c.criterion}): {c.mark}", c.figures) for c in claims(study)]
    rows += rows_of_assessment(title, assessment)
    rows += [
        Row(
            f"{title}: cost, % of always asking the strong model",
            category,
            {router: assessment.cost(router, category, study.weak_over_strong) for router in assessment.routers},
        )
        for category in assessment.categories
    ]
    for router in assessment.routers:
        category, difficulty = assessment.explained(router)
        figures = {"by category": category, "by difficulty inside it": difficulty}
        rows.append(Row(f"{title}: variance of decisions explained, %", router, figures))
    rows += _rows_of_waste(f"{title}: waste", study.waste)
    rows += [
        Row(
            f"{title}: jailbreaks that succeed, %",
            f"{line.router}, {line.weak}",
            {
                "to the strong model": line.strong,
                "routed": line.success,
                "always strong": line.always_strong,
                "always weak": line.always_weak,
                "routed over always strong, points": line.over_always_strong,
                "routed over a coin flip, points": line.over_coin,
            },
        )
        for line in study.exposures
    ]
    rows += [
        Row(
            f"{title}: jailbreaks that succeed behind a guard, %",
            f"{line.alone.router}, {line.guard}",
            {"alone": line.alone.success, "guarded": line.guarded.success, "gain, points": line.gain},
        )
        for line in study.guarded
    ]
    rows += [
        Row(
            f"{title}: private data, %",
            line.router,
            _known(
                {
                    "private to the weak model": line.private_to_weak,
                    "others to the weak model": line.others_to_weak,
                    "turned by masking": line.changed_by_masking,
                    "private to the weak model under the rule": line.to_weak_under_rule,
                }
            ),
        )
        for line in study.privacy
    ]
    rows += [
        Row(
            f"{title}: backdoor to the {line.target} model, %",
            f"{line.router}, {100 * line.share:g} % poisoned",
            _known(
                {
                    "triggered prompts that arrive": line.reached,
                    "turned": line.turned,
                    "clean decisions turned": line.clean_flips,
                    "clean quality gain": line.clean_quality,
                }
            ),
        )
        for line in study.damage
    ]
    if study.balanced:
        balanced_title = f"{title}, tasks balanced"
        rows += rows_of_assessment(balanced_title, study.balanced)
        for router in study.balanced.routers:
            category, difficulty = study.balanced.explained(router)
            figures = {"by category": category, "by difficulty inside it": difficulty}
            rows.append(Row(f"{balanced_title}: variance of decisions explained, %", router, figures))
        rows += _rows_of_waste(f"{balanced_title}: waste", study.balanced_waste)
    return rows


def _rows_of_waste(title: str, lines: Iterable[Waste]) -> list[Row]:
    return [
        Row(
            title if line.group == "all" else f"{title} by kind of task",
            line.router if line.group == "all" else f"{line.group}, {line.router}",
            _known(
                {
                    "to the strong model, %": line.strong,
                    "of these wasted, %": line.wasted,
                    "of the others missed, %": line.missed,
                    "cost, % of always strong": line.cost,
                    "quality, %": line.quality,
                    "AUC": line.auc,
                    "AUC inside a task": line.auc_within,
                }
            ),
        )
        for line in lines
    ]


def _rows_of_rules(rules: Rules) -> list[Row]:
    rows = [
        Row(
            "guards against jailbreaks, % stopped",
            guard.name,
            {**guard.stopped, "harmless": guard.false_alarms, "harmless, dressed up": guard.dressed_up},
        )
        for guard in rules.guards
    ]
    rows += [
        Row(
            "rule for private data, % found",
            line.kind,
            {"sentences": Figure(float(line.prompts)), "as this kind": line.found, "at all": line.found_at_all},
        )
        for line in rules.detections
    ]
    return rows


def _known(figures: dict[str, Figure | None]) -> dict[str, Figure]:
    return {name: figure for name, figure in figures.items() if figure is not None}
