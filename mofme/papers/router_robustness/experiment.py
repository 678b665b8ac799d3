"""Everything measured of the routers that one table of preferences trains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import BoolArray, FloatArray
from mofme.papers.router_robustness import jailbreaks
from mofme.papers.router_robustness.assessment import Assessment, assess, waste_by_group
from mofme.papers.router_robustness.privacy import Labelled, detections, labelled, privacy
from mofme.papers.router_robustness.probes import (
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

# The quick ones, for what takes dozens of trainings.
QUICK = ("logistic", "neighbours", "network", "carrot")


@dataclass(frozen=True)
class Prompts:
    """What routers are probed with; attacks and sentences are empty where the folder has none."""

    probes: tuple[Probe, ...]
    attacks: dict[str, list[jailbreaks.Attempt]]
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
            attacks = {weak: jailbreaks.attempts(records, weak) for weak in jailbreaks.WEAK} if records else {}
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
    """Guards are tried on the attacks of the first weak model; without recorded attacks only the phrases are."""
    tried = next(iter(prompts.attacks.values()), [])
    dressed_up = [probe.prompt for probe in own_probes() if probe.category == "jailbreak"]
    found = {"phrases": jailbreaks.phrase_guard(tried, prompts.harmless, dressed_up)}
    if tried:
        found["classifier"] = jailbreaks.classifier_guard(tried, prompts.harmless, dressed_up, embed)
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
        f"{router}, {weak}": jailbreaks.exposure(runs[router], tried, embed)
        for weak, tried in prompts.attacks.items()
        for router in runs
    }
    tried = next(iter(prompts.attacks.values()), [])
    guarded = {
        f"{router}, {guard}": jailbreaks.guarded_exposure(runs[router], tried, stopped, embed)
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
        evened = [
            train(router, balanced(part.fit, seed), part.calibrate)
            for router in QUICK
            for part, seed in zip(splits, seeds, strict=True)
        ]
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
