"""Is the plug-in rule as fast as it can be? A simulation in which the best choice is known.

CARROT (arXiv 2502.03261, minimax analysis): where quality and cost are Hoelder-smooth of order gamma and the best two
models are seldom close, P(0 < lead <= t) <= c t^alpha, no router's excess risk falls faster with n recorded queries
than n^(-gamma (1 + alpha) / (2 gamma + d)), and the plug-in rule on rate-optimal estimates falls as fast.

Ours: queries are uniform on a torus, which has no edges, cut finely into a grid of G cells; three models whose
utilities cross twice; outcomes are right or wrong, costs are noisy, and both are estimated by Nadaraya-Watson means.
The excess risk is averaged over all cells, not over a sample of queries.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft

from mofme.language.tables.table import FloatArray, IntArray
from mofme.measure.result import Figure, Result, Row
from mofme.measure.statistics import percentiles
from mofme.papers.carrot import judge_rate
from mofme.papers.carrot.carrot import Estimate, plug_in

COST_WEIGHT = 0.5  # lambda of the plug-in rule
_CROSSING = 0.6
_HEIGHT = 0.19  # the largest utility, plus or minus, at which every quality stays in [0, 1]
_COSTS = (0.05, 0.1, 0.2)
_SIDES = {1: 65536, 2: 256, 3: 64}
_NOTHING = 1e-6  # queries in a window, weighed by it: below this there is none, only rounding


@dataclass(frozen=True)
class Sample:
    """What was recorded in each of G cells: how many queries, and the sums of M models' outcomes and costs."""

    count_G: FloatArray
    outcome_MG: FloatArray
    cost_MG: FloatArray

    def __add__(self, other: "Sample") -> "Sample":
        return Sample(self.count_G + other.count_G, self.outcome_MG + other.outcome_MG, self.cost_MG + other.cost_MG)


@dataclass(frozen=True)
class World:
    """A regression function of known smoothness gamma (at most 2) and margin alpha, in 1, 2 or 3 dimensions."""

    dim: int
    smoothness: float
    margin: float

    @property
    def name(self) -> str:
        return f"{self.dim}-D, smoothness {self.smoothness:g}, margin {self.margin:g}"

    @property
    def rate(self) -> float:
        """The exponent of n in the minimax excess risk."""
        return -self.smoothness * (1 + self.margin) / (2 * self.smoothness + self.dim)

    @property
    def shape(self) -> tuple[int, ...]:
        return (_SIDES[self.dim],) * self.dim

    @cached_property
    def utility_MG(self) -> FloatArray:
        """Cheap is best where the position is below -0.6, dear above +0.6; the model between is worth 0 everywhere."""
        waves = np.sin(2 * math.pi * np.indices(self.shape) / _SIDES[self.dim])
        position_G = waves.sum(0).ravel() / math.sqrt(self.dim)
        leads = [self._lead(-position_G - _CROSSING), np.zeros_like(position_G), self._lead(position_G - _CROSSING)]
        utility_MG = np.stack(leads)
        return _HEIGHT / np.abs(utility_MG).max() * utility_MG

    def _lead(self, distance_G: FloatArray) -> FloatArray:
        """|distance|^(1 / alpha) with its sign; half as steep below 0, so that it is no smoother than gamma = 1."""
        signed_G = np.sign(distance_G) * np.abs(distance_G) ** (1 / self.margin)
        return np.where((signed_G > 0) | (self.smoothness > 1), signed_G, signed_G / 2)

    @cached_property
    def cost_MG(self) -> FloatArray:
        """Mean costs."""
        first_G = np.indices(self.shape)[0].ravel() / _SIDES[self.dim]
        return np.outer(_COSTS, 1 + 0.25 * np.cos(2 * math.pi * first_G))

    @cached_property
    def quality_MG(self) -> FloatArray:
        """The probability of a right answer: `plug_in` of it and the cost is the utility, plus 0.2."""
        return (self.utility_MG + 0.2 + COST_WEIGHT * self.cost_MG) / (1 - COST_WEIGHT)

    def sample(self, n: int, generator: np.random.Generator) -> Sample:
        """n recorded queries: Bernoulli outcomes, Gamma costs of deviation mean / 2, their sums drawn at once."""
        count_G = np.bincount(generator.integers(self.cost_MG.shape[1], size=n), minlength=self.cost_MG.shape[1])
        outcome_MG = generator.binomial(count_G, self.quality_MG).astype(float)
        cost_MG = self.cost_MG / 4 * generator.gamma(4 * count_G, size=self.cost_MG.shape)
        return Sample(count_G.astype(float), outcome_MG, cost_MG)


WORLDS = (World(1, 1, 1), World(2, 1, 1), World(3, 1, 1), World(2, 2, 1), World(2, 1, 0.5), World(1, 0.5, 2))


def excess_risk(utility_MG: FloatArray, choice_G: IntArray) -> float:
    """The mean utility that is lost against the best choice for every query; exactly 0 for that choice."""
    return float((utility_MG.max(0) - np.take_along_axis(utility_MG, choice_G[None], axis=0)[0]).mean())


def by_window(world: World, sample: Sample, share: float) -> IntArray:
    """The plug-in rule on means over a Gaussian window around each query that takes up `share` of the space."""
    return _chosen(*(window_means(world, sample, sums, share) for sums in (sample.outcome_MG, sample.cost_MG)))


def best_single(sample: Sample) -> IntArray:
    """One model for every query: a control."""
    overall = (sums_MG.sum(1, keepdims=True) / sample.count_G.sum() for sums_MG in (sample.outcome_MG, sample.cost_MG))
    return np.repeat(_chosen(*overall), len(sample.count_G))


def _chosen(quality_MG: FloatArray, cost_MG: FloatArray) -> IntArray:
    return plug_in(Estimate(quality_MG.T, cost_MG.T), COST_WEIGHT).T.argmax(0)


def optimal_share(world: World, n: int) -> float:
    """The optimal order of a window's share of the space: a bandwidth of n^(-1 / (2 gamma + d))."""
    return float(n ** (-world.dim / (2 * world.smoothness + world.dim)))


def held_out_share(world: World, kept: Sample, held: Sample) -> float:
    """The window a half, a quarter, ... as wide as the space whose means of `kept` fit the outcomes of `held` best."""

    def error(share: float) -> float:
        """The summed squared error of the estimated qualities, less what no estimate changes."""
        mean_MG = window_means(world, kept, kept.outcome_MG, share)
        return float((mean_MG * (mean_MG * held.count_G - 2 * held.outcome_MG)).sum())

    halvings = range(1, max(2, int(math.log2(kept.count_G.sum()) / world.dim)))
    return min((2.0 ** (-world.dim * power) for power in halvings), key=error)


def window_means(world: World, sample: Sample, sums_MG: FloatArray, share: float) -> FloatArray:
    """Means (M, G) under a Gaussian around each cell; where nothing was recorded for far, the mean of it all.

    The Gaussian is as wide as makes its means as noisy as those over a cube that fills `share` of the space.
    """
    sigma = share ** (1 / world.dim) / (2 * math.sqrt(math.pi))
    steps = np.minimum(np.arange(_SIDES[world.dim]), np.arange(_SIDES[world.dim], 0, -1)) / _SIDES[world.dim]
    kernel = np.exp(-np.square(np.meshgrid(*[steps] * world.dim, indexing="ij")).sum(0) / (2 * sigma**2))
    axes = range(1, world.dim + 1)
    grids = np.vstack([sample.count_G, sums_MG]).reshape(-1, *world.shape)
    spread = fft.irfftn(fft.rfftn(grids, axes=axes) * fft.rfftn(kernel), world.shape, axes=axes)
    count_G, *spread_MG = spread.reshape(len(grids), -1)
    overall_M1 = sums_MG.sum(1, keepdims=True) / sample.count_G.sum()
    return np.where(count_G > _NOTHING, spread_MG / np.maximum(count_G, _NOTHING), overall_M1)


POLICIES = (
    "window of the optimal order",
    "window by hold-out",
    "window of 64 queries",
    "window of 1/4 of the space",
    "best single model",
)


def simulate(world: World, n: int, seed: int) -> list[float]:
    """The excess risk of every policy after n recorded queries, a fifth of which the hold-out sets aside."""
    generator = np.random.default_rng([seed, n])
    held, kept = world.sample(n // 5, generator), world.sample(n - n // 5, generator)
    sample = kept + held
    shares = (optimal_share(world, n), held_out_share(world, kept, held), 64 / n, 1 / 4)
    choices = [*(by_window(world, sample, share) for share in shares), best_single(sample)]
    return [excess_risk(world.utility_MG, choice_G) for choice_G in choices]


def slope_of(sizes: Sequence[int], excess_NS: FloatArray, draws: int = 1000) -> Figure:
    """The exponent of n: the least-squares slope of log mean excess risk against log n.

    `excess_NS` has a row for each size and a column for each seed; the interval is a 95 % bootstrap over the seeds.
    """
    generator = np.random.default_rng(0)
    drawn = generator.integers(excess_NS.shape[1], size=(len(sizes), draws, excess_NS.shape[1]))
    means_ND = np.stack([excess_S[index] for excess_S, index in zip(excess_NS, drawn, strict=True)]).mean(2)

    def fit(mean_N: FloatArray) -> FloatArray:
        return np.asarray(np.polyfit(np.log(sizes), np.log(mean_N), 1)[0])

    return Figure(float(fit(excess_NS.mean(1))), *percentiles(fit(means_ND)))


SLOPES = "Exponent of n in the excess risk"
THEORY = "best possible"
LATE = f"{POLICIES[0]}, three largest n"


def as_result(excess: Mapping[World, FloatArray], sizes: Sequence[int], seeds: Sequence[int], command: str) -> Result:
    """`excess` holds for each world an array (sizes, seeds, policies)."""
    slopes = {
        world: [slope_of(sizes, excess_NSP[:, :, p]) for p in range(len(POLICIES))]
        + [slope_of(sizes[-3:], excess_NSP[-3:, :, 0])]
        for world, excess_NSP in excess.items()
    }
    rows = [
        Row(SLOPES, world.name, {THEORY: Figure(world.rate), **dict(zip([*POLICIES, LATE], figures, strict=True))})
        for world, figures in slopes.items()
    ]
    for world, excess_NSP in excess.items():
        mean_NP = 1000 * excess_NSP.mean(1)
        error_NP = 1.96 * 1000 * excess_NSP.std(1, ddof=1) / np.sqrt(len(seeds))
        for n, mean_P, error_P in zip(sizes, mean_NP, error_NP, strict=True):
            figures = {
                policy: Figure(float(mean), float(mean - error), float(mean + error))
                for policy, mean, error in zip(POLICIES, mean_P, error_P, strict=True)
            }
            rows.append(Row(f"Excess risk x 1000, {world.name}", f"n = {n:,}", figures))
    result = Result(
        room="llm_routing_rate",
        paper="CARROT, arXiv 2502.03261",
        claim="The plug-in rule is minimax rate-optimal: for smoothness g, margin a and d dimensions its excess risk "
        "falls as n^(-g (1 + a) / (2 g + d)), the best possible.",
        verdict="",
        command=command,
        rows=rows,
        seeds=seeds,
        interval="95 %, over the seeds: bootstrap for exponents, normal for risks",
    )
    return judge_rate(result)
