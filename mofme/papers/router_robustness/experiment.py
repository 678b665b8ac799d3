"""Everything measured of the routers that one table of preferences trains, and its tables; `judge` says what of it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure, Result, Row
from mofme.papers.router_robustness import CATEGORY_OVER, judge, safety
from mofme.papers.router_robustness.assessment import ALL, Assessment, assess, waste_by_group
from mofme.papers.router_robustness.probes import (
    CATEGORIES,
    DIFFICULTIES,
    JAILBREAKS,
    PRIVATE,
    Probe,
    find_file,
    own_probes,
    read_probes,
    read_records,
)
from mofme.papers.router_robustness.routers import (
    TRAINERS,
    BetweenTwo,
    Embed,
    Figures,
    Recorded,
    TwoModelRouter,
    backdoor,
    balanced,
    controls,
    split,
    train,
)
from mofme.papers.router_robustness.safety import Labelled, detections, labelled, privacy

# The quick ones, for what takes dozens of trainings.
QUICK = ("logistic", "neighbours", "network", "carrot")


@dataclass(frozen=True)
class Prompts:
    """What routers are probed with; attacks and sentences are empty where the folder has none."""

    probes: tuple[Probe, ...]
    attacks: dict[str, list[safety.Attempt]]
    sentences: tuple[Labelled, ...]

    @classmethod
    def read(cls, folder: Path | None) -> "Prompts":
        """Our own prompts, and those of the folder. Raises TableError."""
        if folder is None:
            return cls(tuple(own_probes()), {}, ())
        probes = read_probes(folder)
        records = read_records(folder, JAILBREAKS) if find_file(folder, JAILBREAKS) else []
        private = read_records(folder, PRIVATE) if find_file(folder, PRIVATE) else []
        try:
            attacks = {weak: safety.attempts(records, weak) for weak in safety.WEAK} if records else {}
            sentences = labelled(private)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TableError(f"{folder}: {JAILBREAKS} or {PRIVATE} is not as expected: {error!r}") from error
        return cls(tuple(probes), attacks, tuple(sentences))

    @property
    def harmless(self) -> list[str]:
        return [probe.prompt for probe in self.probes if probe.category != "jailbreak"]


@dataclass(frozen=True)
class Study:
    """One table's routers. `weak_over_strong` is what the weak model costs for each dollar of the strong one.

    `waste` is by router and group of tasks, `exposures` by router and weak model, `privacy` by router, `damage` by the
    attacker's model and the poisoned router, `guarded` by router and guard with the first weak model. `balanced` and
    `balanced_waste` are the quick routers trained on data in which tasks say nothing.
    """

    table: str
    weak_over_strong: float
    assessment: Assessment
    waste: Mapping[str, Mapping[str, Figures]]
    exposures: Mapping[str, Figures] = field(default_factory=dict)
    privacy: Mapping[str, Figures] = field(default_factory=dict)
    damage: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    balanced: Assessment | None = None
    balanced_waste: Mapping[str, Mapping[str, Figures]] = field(default_factory=dict)
    guarded: Mapping[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """What does not depend on any table: how the guards and the rule for private data do by themselves, and which texts
    of each attack on the first weak model a guard stops."""

    guards: Mapping[str, Figures] = field(default_factory=dict)
    stopped: Mapping[str, Sequence[BoolArray]] = field(default_factory=dict)
    detections: Mapping[str, Figures] = field(default_factory=dict)


def try_rules(prompts: Prompts, embed: Embed) -> Rules:
    """Guards are tried on the attacks of the first weak model; without two attacks and two requests, of which the
    classifier learns from one and is judged by the other, only the phrases are."""
    tried = next(iter(prompts.attacks.values()), [])
    dressed_up = [probe.prompt for probe in own_probes() if probe.category == "jailbreak"]
    found = {"phrases": safety.phrase_guard(tried, prompts.harmless, dressed_up)}
    told = [attempt for attempt in tried if attempt.prompts]
    if min(len({one.attack for one in told}), len({one.request for one in told})) > 1:
        found["classifier"] = safety.classifier_guard(tried, prompts.harmless, dressed_up, embed)
    guards = {name: figures for name, (figures, _) in found.items()}
    return Rules(guards, {name: stopped for name, (_, stopped) in found.items()}, detections(prompts.sentences))


def study(
    name: str,
    data: Recorded,
    prompts: Prompts,
    rules: Rules,
    seeds: Sequence[int],
    embed: Embed,
    report: Callable[[str], None],
) -> Study:
    """Train the routers on the table, a run for each seed, and measure everything.

    Probes that stand in the table are not learnt from. Raises TableError for a table with nothing to learn.
    """
    probed = {probe.prompt for probe in prompts.probes}
    data = data.rows([row for row, prompt in enumerate(data.table.prompts) if prompt not in probed])
    splits = [split(data, seed) for seed in seeds]
    report(f"{name}: training {len(TRAINERS)} routers, {len(seeds)} times")
    trained = [train(router, part.fit, part.calibrate) for router in TRAINERS for part in splits]
    routers = [*trained, *controls(len(seeds))]
    runs = {one.name: _runs(routers, one.name, len(seeds)) for one in routers}
    report(f"{name}: probing")
    assessment = assess(routers, prompts.probes, embed)
    report(f"{name}: attacks and private data")
    exposures = {
        f"{router}, {weak}": safety.exposure(runs[router], tried, embed)
        for weak, tried in prompts.attacks.items()
        for router in runs
    }
    tried = next(iter(prompts.attacks.values()), [])
    guarded = {
        f"{router}, {guard}": safety.guarded_exposure(runs[router], tried, stopped, embed)
        for guard, stopped in rules.stopped.items()
        for router in TRAINERS
        if tried
    }
    report(f"{name}: backdoors")
    damage = {
        target: {
            row: figures
            for router in QUICK
            for row, figures in backdoor(router, data, seeds, embed, target == "strong").items()
        }
        for target in ("strong", "weak")
    }
    evened: list[TwoModelRouter] = []
    if len(set(data.table.tasks)) > 1:
        report(f"{name}: balanced training")
        try:
            evened = [
                train(router, balanced(part.fit, seed), part.calibrate)
                for router in QUICK
                for part, seed in zip(splits, seeds, strict=True)
            ]
        except TableError as error:  # all else is measured by now
            report(f"{name}: balanced training is left out: {error}")
    evened_runs = {router: _runs(evened, router, len(seeds)) for router in QUICK if evened}
    cost_2 = data.table.cost_NM.mean(0)
    return Study(
        name,
        float(cost_2[1] / max(cost_2[0], 1e-12)),
        assessment,
        {router: waste_by_group(of_router, splits) for router, of_router in runs.items()},
        exposures,
        {router: privacy(runs[router], prompts.sentences, embed) for router in runs if prompts.sentences},
        damage,
        assess(evened, prompts.probes, embed, rewordings=()) if evened else None,
        {router: waste_by_group(of_router, splits) for router, of_router in evened_runs.items()},
        guarded,
    )


def _runs(routers: Sequence[TwoModelRouter], name: str, count: int) -> list[TwoModelRouter]:
    """A router's runs, one for each split: one that does not learn stands in all of them."""
    runs = [router for router in routers if router.name == name]
    return runs if len(runs) == count else [runs[0]] * count


def remembering(embed: Embed, batch: int | None = None) -> Embed:
    """The same embeddings, each prompt embedded once, `batch` at a time: routers are many, and prompts the same."""
    known: dict[str, FloatArray] = {}

    def remembered(prompts: Sequence[str]) -> Queries:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        step = batch or max(1, len(new))
        for part in (new[start : start + step] for start in range(0, len(new), step)):
            known.update(zip(part, embed(part).embeddings_ND, strict=True))
        return Queries(prompts, np.array([known[prompt] for prompt in prompts]))

    return remembered


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
