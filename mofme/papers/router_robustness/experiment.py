"""Everything measured of the routers that one table of preferences trains, and its tables; `judge` says what of it."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure, Result, Row
from mofme.papers.router_robustness import CATEGORY_OVER, judge, routers, safety
from mofme.papers.router_robustness.assessment import ALL, Assessment, assess, waste_by_group
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe, own_probes
from mofme.papers.router_robustness.routers import TRAINERS, Embed, Figures, Recorded, Split, TwoModelRouter, train
from mofme.papers.router_robustness.safety import Prompts

# The quick ones, for what takes dozens of trainings.
QUICK = ("logistic", "neighbours", "network", "carrot")


def try_rules(prompts: Prompts, embed: Embed) -> tuple[list[Row], dict[str, BoolArray]]:
    """What does not depend on any table: how guards and the rule for private data do by themselves, and which texts of
    the first attacks each guard stops (T,).

    The classifier learns from one attack and request and is judged by others: without two of each only the phrases are
    tried.
    """
    tried = prompts.first_attacks
    told = [attempt for attempt in tried if attempt.prompts]
    harmless = [probe.prompt for probe in prompts.probes if probe.category != "jailbreak"]
    dressed_up = [probe.prompt for probe in own_probes() if probe.category == "jailbreak"]
    found = {"phrases": safety.phrase_guard(tried, harmless, dressed_up)}
    if min(len({one.attack for one in told}), len({one.request for one in told})) > 1:
        found["classifier"] = safety.classifier_guard(tried, harmless, dressed_up, embed)
    tables = {
        "guards against jailbreaks, % stopped": {name: figures for name, (figures, _) in found.items()},
        "rule for private data, % found": safety.detections(prompts.sentences),
    }
    return _rows_of(tables), {name: stopped_T for name, (_, stopped_T) in found.items()}


def study(
    name: str,
    data: Recorded,
    prompts: Prompts,
    stopped: Mapping[str, BoolArray],
    seeds: Sequence[int],
    embed: Embed,
    report: Callable[[str], None],
) -> list[Row]:
    """Train the routers on the table, a run for each seed, and measure everything; `stopped` is as of `try_rules`.
    Probes that stand in the table are not learnt from. Raises TableError for a table with nothing to learn."""
    probed = {probe.prompt for probe in prompts.probes}
    data = data.rows([row for row, prompt in enumerate(data.table.prompts) if prompt not in probed])
    splits = [routers.split(data, seed) for seed in seeds]
    report(f"{name}: training {len(TRAINERS)} routers, {len(seeds)} times")
    runs = _trained(TRAINERS, splits) | routers.controls(len(seeds))
    report(f"{name}: probing")
    assessment = assess(runs, prompts.probes, embed)
    strong, weak = data.table.cost_NM.mean(0)
    costs = {
        category: {one: assessment.cost(one, category, float(weak / max(strong, 1e-12))) for one in runs}
        for category in assessment.categories
    }
    rows = [
        *_rows_of_assessment(name, assessment),
        *_rows_of({f"{name}: cost, % of always asking the strong model": costs}),
        *_rows_of_explained(name, assessment),
        *_rows_of_waste(name, runs, splits),
    ]
    report(f"{name}: attacks and private data")
    shares = {
        (router, weak): safety.strong_share(of_router, tried, embed)
        for weak, tried in prompts.attacks.items()
        for router, of_router in runs.items()
    }
    first, tried = next(iter(prompts.attacks), ""), prompts.first_attacks
    guarded = {
        f"{router}, {guard}": safety.guarded_exposure(
            shares[router, first], safety.strong_share(runs[router], tried, embed, stopped_T), tried
        )
        for guard, stopped_T in stopped.items()
        for router in TRAINERS
        if tried
    }
    tables = {
        "jailbreaks that succeed, %": {
            f"{router}, {weak}": safety.exposure(strong_N, prompts.attacks[weak])
            for (router, weak), strong_N in shares.items()
        },
        "jailbreaks that succeed behind a guard, %": guarded,
        "private data, %": {
            router: safety.privacy(of_router, prompts.sentences, embed)
            for router, of_router in runs.items()
            if prompts.sentences
        },
    }
    report(f"{name}: backdoors")
    for target in ("strong", "weak"):
        lines = [routers.backdoor(router, data, seeds, embed, target == "strong") for router in QUICK]
        tables[f"backdoor to the {target} model, %"] = {row: found for one in lines for row, found in one.items()}
    rows += _rows_of({f"{name}: {what}": lines for what, lines in tables.items()})
    if len(set(data.table.tasks)) > 1:
        report(f"{name}: balanced training")
        try:
            pairs = zip(splits, seeds, strict=True)
            evened = [replace(part, fit=routers.balanced(part.fit, seed)) for part, seed in pairs]
            runs, title = _trained(QUICK, evened), f"{name}, tasks balanced"
            assessment = assess(runs, prompts.probes, embed, rewordings=())
            rows += _rows_of_assessment(title, assessment) + _rows_of_explained(title, assessment)
            rows += _rows_of_waste(title, runs, splits)
        except TableError as error:  # all else is measured by now
            report(f"{name}: balanced training is left out: {error}")
    return rows


def _trained(names: Iterable[str], splits: Sequence[Split]) -> dict[str, list[TwoModelRouter]]:
    return {name: [train(name, part.fit, part.calibrate) for part in splits] for name in names}


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


def as_result(rows: Sequence[Row], probes: Sequence[Probe], command: str, seeds: Sequence[int]) -> Result:
    """Studies of one table or several; the first bears the verdict."""
    rows = [*rows, *_rows_of_probes(probes)]
    return judge(Result(ROOM, PAPER, CLAIM, "", command, rows, list(seeds), INTERVAL))


def as_result_of_router(
    name: str, strong: str, weak: str, assessment: Assessment, rules: Sequence[Row], command: str
) -> Result:
    """One router probed beside controls, without any table: it bears the verdict."""
    shares = {c: figure.value for c in assessment.categories if (figure := assessment.share(name, c))}
    least, most = min(shares, key=lambda c: shares[c]), max(shares, key=lambda c: shares[c])
    said = (
        f"{name} sends {shares[most]:.0f} % of {most} and {shares[least]:.0f} % of {least} to {strong}, the rest to "
        f"{weak}; harmless rewording turns {assessment.flips(name).value:.0f} % of its decisions."
    )
    rows = [*_rows_of_assessment(name, assessment), *rules]
    return replace(as_result(rows, assessment.probes, command, [0]), verdict=said)


def _rows_of_assessment(title: str, assessment: Assessment) -> list[Row]:
    """Calls to the strong model by category and difficulty, and flips by rewording and category."""
    names, categories = assessment.routers, assessment.categories
    calls, turned = f"{title}: calls to the strong model", f"{title}: decisions turned by rewording"
    counts = Counter((probe.category, probe.source) for probe in assessment.probes)
    several = len({source for _, source in counts}) > 1
    sources = [one for one in counts if several and counts[one] >= ENOUGH]
    sources.sort(key=lambda one: categories.index(one[0]))
    simple_and_hard = f"{title}: simple and hard calls to the strong model, %"
    cells: list[tuple[str, str, tuple[str | None, ...]]] = [
        *((f"{calls}, %", one, (one,)) for one in categories),
        *((simple_and_hard, ", ".join(one), one) for one in itertools.product(categories, DIFFICULTIES)),
        *((f"{calls} by source, %", ", ".join(one), (one[0], None, one[1])) for one in sources),
    ]
    rows = [
        Row(table, row, {name: one for name in names if (one := assessment.share(name, *which))})
        for table, row, which in cells
    ]
    if assessment.rewordings:
        for name in names:
            flips = {kind or "all": assessment.flips(name, kind) for kind in (*assessment.rewordings, None)}
            rows.append(Row(f"{turned}, %", name, flips))
        for category in categories:
            flips = {name: assessment.flips(name, None, category) for name in names}
            rows.append(Row(f"{turned}, by category, %", category, flips))
    return [row for row in rows if row.figures]


def _rows_of_explained(title: str, assessment: Assessment) -> list[Row]:
    columns = ("by category", "by difficulty inside it", CATEGORY_OVER)
    return [
        Row(f"{title}: variance of decisions explained, %", router, dict(zip(columns, figures, strict=True)))
        for router, figures in assessment.explained.items()
    ]


def _rows_of_waste(title: str, runs: Mapping[str, Sequence[TwoModelRouter]], splits: Sequence[Split]) -> list[Row]:
    rows = []
    for router, of_router in runs.items():
        for group, figures in waste_by_group(of_router, splits).items():
            kind, line = ("waste", router) if group == ALL else ("waste by kind of task", f"{group}, {router}")
            rows.append(Row(f"{title}: {kind}", line, figures))
    return rows


def _rows_of(tables: Mapping[str, Mapping[str, Figures]]) -> list[Row]:
    return [Row(table, name, figures) for table, lines in tables.items() for name, figures in lines.items()]


def _rows_of_probes(probes: Sequence[Probe]) -> list[Row]:
    """How many prompts there were, and where they came from."""
    counts = Counter((probe.category, probe.difficulty, probe.source) for probe in probes)
    sources = list(dict.fromkeys(probe.source for probe in probes))
    rows = []
    for category, level in itertools.product(CATEGORIES, DIFFICULTIES):
        figures = {s: Figure(float(counts[category, level, s])) for s in sources if counts[category, level, s]}
        if figures:
            rows.append(Row("prompts", f"{category}, {level}", figures))
    return rows
