"""What probing routers shows: where their calls go by category, and what harmless rewording turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.language.llm_routing.robustness.probes import CATEGORIES, DIFFICULTIES, Probe
from mofme.language.llm_routing.robustness.rewording import REWORDINGS, reword
from mofme.language.llm_routing.robustness.subjects import BoolArray, Subject
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent, percentiles

DRAWS = 500
Embed = Callable[[Sequence[str]], Queries]


@dataclass(frozen=True)
class Assessment:
    """R routers probed with N prompts.

    `strong_RN`: the share of a router's runs that sent the prompt to the strong model, in [0, 1].
    `flips_RWN`: the share of its runs in which the reworded prompt went elsewhere, in [0, 1].
    """

    routers: tuple[str, ...]
    probes: tuple[Probe, ...]
    rewordings: tuple[str, ...]
    strong_RN: FloatArray
    flips_RWN: FloatArray

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that were probed, in the usual order."""
        present = {probe.category for probe in self.probes}
        return tuple(name for name in CATEGORIES if name in present)

    def share(self, router: str, category: str | None = None, difficulty: str | None = None) -> Figure:
        """Calls sent to the strong model, in percent. Raises ValueError where nothing was probed."""
        return bootstrap_percent(self.strong_RN[self.routers.index(router), self._chosen(category, difficulty)])

    def share_of(self, router: str, source: str, category: str) -> Figure:
        """As `share`, of one source's prompts of a category."""
        chosen_N = [probe.source == source and probe.category == category for probe in self.probes]
        return bootstrap_percent(self.strong_RN[self.routers.index(router), chosen_N])

    def flips(self, router: str, rewording: str | None = None, category: str | None = None) -> Figure:
        """Decisions that a rewording turns, in percent; the mean of all rewordings unless one is named."""
        flips_WN = self.flips_RWN[self.routers.index(router)]
        rows = [self.rewordings.index(rewording)] if rewording else list(range(len(self.rewordings)))
        return bootstrap_percent(flips_WN[rows].mean(0)[self._chosen(category, None)])

    def cost(self, router: str, category: str, weak_over_strong: float) -> Figure:
        """What the calls cost, in percent of always asking the strong model, if cost goes by the length of prompts.

        `weak_over_strong` is what the weak model costs for each dollar of the strong one.
        """
        chosen = self._chosen(category, None)
        strong_n = self.strong_RN[self.routers.index(router), chosen]
        length_n = np.array([len(probe.prompt) for probe in self.probes], np.float64)[chosen]
        return bootstrap_percent(length_n * (strong_n + (1 - strong_n) * weak_over_strong), length_n)

    def matrix(self, difficulty: str | None = None) -> FloatArray:
        """Calls sent to the strong model, in percent: categories x routers, as a heat map shows it."""
        return np.array(
            [
                [self.share(router, category, difficulty).value for router in self.routers]
                for category in self.categories
            ]
        )

    def explained(self, router: str) -> tuple[Figure, Figure]:
        """What category explains of the variance of a router's decisions, and difficulty beyond it, in percent.

        Intervals by drawing prompts inside each category and difficulty. 0 where a router always decides the same.
        """
        strong_N = self.strong_RN[self.routers.index(router)]
        chosen = [self._chosen(category, difficulty) for category in self.categories for difficulty in DIFFICULTIES]
        cells = [strong_N[cell_N] for cell_N in chosen if cell_N.any()]
        owner_C = [self.probes[int(cell_N.argmax())].category for cell_N in chosen if cell_N.any()]
        rng = np.random.default_rng(0)
        drawn = [[rng.choice(cell, len(cell)) for cell in cells] for _ in range(DRAWS)]
        parts_B2 = np.array([_variances(cells, owner_C), *(_variances(draw, owner_C) for draw in drawn)])
        category, difficulty = (_explained(part_B) for part_B in parts_B2.T)
        return category, difficulty

    def _chosen(self, category: str | None, difficulty: str | None) -> BoolArray:
        return np.array(
            [category in (None, probe.category) and difficulty in (None, probe.difficulty) for probe in self.probes]
        )


def _explained(part_B: FloatArray) -> Figure:
    """The first, with the interval of the others. Drawn cells differ more than the cells do: all may lie above it."""
    low, high = percentiles(part_B[1:])
    return Figure(float(part_B[0]), min(low, float(part_B[0])), high)


def _variances(cells: Sequence[FloatArray], owner_C: Sequence[str]) -> tuple[float, float]:
    """Shares of the variance over all cells, in percent: between owners, and between the cells of one owner."""
    all_N = np.concatenate(cells)
    total = float(all_N.var())
    if total == 0:
        return 0.0, 0.0
    size_C, mean_C = np.array([len(cell) for cell in cells]), np.array([cell.mean() for cell in cells])
    owners = np.unique(owner_C, return_inverse=True)[1]
    owner_mean_C = (np.bincount(owners, size_C * mean_C) / np.bincount(owners, size_C))[owners]
    between = float((size_C * (owner_mean_C - all_N.mean()) ** 2).sum()) / len(all_N)
    inside = float((size_C * (mean_C - owner_mean_C) ** 2).sum()) / len(all_N)
    return 100 * between / total, 100 * inside / total


def assess(
    routers: Sequence[Subject],
    probes: Sequence[Probe],
    embed: Embed,
    rewordings: Sequence[str] = tuple(REWORDINGS),
    seed: int = 0,
) -> Assessment:
    """Probe routers that are ready to decide; several of one name are runs of one router, and are averaged."""
    names = tuple(dict.fromkeys(router.name for router in routers))
    plain = embed([probe.prompt for probe in probes])
    changed = [embed(reword([probe.prompt for probe in probes], name, seed)) for name in rewordings]
    strong, flips = [], []
    for name in names:
        runs = [router for router in routers if router.name == name]
        before = [run.to_strong(plain) for run in runs]
        strong.append(np.mean(before, axis=0))
        flips.append(
            [
                np.mean([was != run.to_strong(queries) for run, was in zip(runs, before, strict=True)], axis=0)
                for queries in changed
            ]
        )
    shape = (len(names), len(rewordings), len(probes))
    return Assessment(names, tuple(probes), tuple(rewordings), np.array(strong), np.array(flips).reshape(shape))
