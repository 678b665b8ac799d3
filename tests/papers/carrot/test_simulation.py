import numpy as np
import pytest

from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.simulation import (
    COST_WEIGHT,
    POLICIES,
    SLOPES,
    WORLDS,
    Sample,
    World,
    as_result,
    best_single,
    by_window,
    excess_risk,
    held_out_share,
    optimal_share,
    simulate,
    slope_of,
    window_means,
)

LINE, PLANE, SPACE = WORLDS[0], WORLDS[1], WORLDS[2]


def everything_known(world: World) -> Sample:
    """As if each cell had been asked once, without any noise."""
    return Sample(np.ones(world.cost_MG.shape[1]), world.quality_MG, world.cost_MG)


def test_excess_risk_by_hand() -> None:
    utility_MG = np.array([[0.5, 0.1, 0.3], [0.2, 0.4, 0.3]])
    # Lost: 0.5 - 0.2, nothing, and nothing between equals: 0.3 / 3.
    assert excess_risk(utility_MG, np.array([1, 1, 0])) == pytest.approx(0.1)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_world_is_possible_and_its_oracle_loses_nothing(world: World) -> None:
    assert world.quality_MG.min() >= 0 and world.quality_MG.max() <= 1
    utility_MG = (1 - COST_WEIGHT) * world.quality_MG - COST_WEIGHT * world.cost_MG
    np.testing.assert_allclose(utility_MG, world.utility_MG + 0.2)
    best_G = world.utility_MG.argmax(0)
    assert (np.bincount(best_G, minlength=3) > 0.15 * len(best_G)).all()  # every model is best somewhere
    assert excess_risk(world.utility_MG, best_G) == 0
    # Nor does the plug-in rule on the truth: quality and cost are what make the utility.
    assert excess_risk(world.utility_MG, by_window(world, everything_known(world), 1e-9)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("world", [WORLDS[0], WORLDS[3], WORLDS[4], WORLDS[5]], ids=lambda world: world.name)
def test_small_leads_are_as_rare_as_the_margin_says(world: World) -> None:
    # P(lead <= t) ~ t^alpha: its slope in logarithms, close to 0.
    ordered = np.sort(world.utility_MG, axis=0)
    lead_G = ordered[-1] - ordered[-2]
    thresholds = np.geomspace(0.004, 0.03, 6) if world.margin == 2 else np.geomspace(0.0005, 0.008, 6)
    shares = [(lead_G <= threshold).mean() for threshold in thresholds]
    slope = np.polyfit(np.log(thresholds), np.log(shares), 1)[0]
    assert slope == pytest.approx(world.margin, rel=0.12)


def test_rates_and_windows_by_hand() -> None:
    # d = 2, gamma = 1: n^(-2 / 4), 1 / 100 of the space for 10,000 queries.
    assert optimal_share(PLANE, 10_000) == pytest.approx(0.01)
    # gamma (1 + alpha) / (2 gamma + d): 2/3, 2/4, 2/5, 4/6, 1.5/4 and 1.5/2.
    assert [-world.rate for world in WORLDS] == pytest.approx([2 / 3, 0.5, 0.4, 2 / 3, 0.375, 0.75])


def test_samples_have_the_means_of_the_world() -> None:
    n = 1_000_000
    sample = SPACE.sample(n, np.random.default_rng(0))
    assert sample.count_G.sum() == n
    for sums_MG, mean_MG in ((sample.outcome_MG, SPACE.quality_MG), (sample.cost_MG, SPACE.cost_MG)):
        np.testing.assert_allclose(sums_MG.sum(1) / n, mean_MG.mean(1), rtol=5e-3)
    # Outcomes are 0 or 1, costs Gamma of shape 4: variances q (1 - q) and cost^2 / 4 for each query.
    q_MG, c_MG = SPACE.quality_MG, SPACE.cost_MG
    for sums_MG, mean_MG, variance_MG in (
        (sample.outcome_MG, q_MG, q_MG * (1 - q_MG)),
        (sample.cost_MG, c_MG, c_MG**2 / 4),
    ):
        squares = (sums_MG - sample.count_G * mean_MG) ** 2
        assert squares.sum() == pytest.approx((sample.count_G * variance_MG).sum(), rel=0.02)


@pytest.mark.parametrize("world", [LINE, PLANE, SPACE], ids=lambda world: world.name)
def test_window_means_are_those_of_a_direct_sum(world: World) -> None:
    sample = world.sample(30_000, np.random.default_rng(1))
    side, share = world.shape[0], 0.02
    means_MG = window_means(world, sample, sample.cost_MG, share)
    # The mean of squares over the square of means of a Gaussian's weights is (2 sigma sqrt(pi))^d.
    sigma = share ** (1 / world.dim) / (2 * np.sqrt(np.pi))
    for cell in [(0,) * world.dim, (side - 1,) * world.dim, (5,) * world.dim]:
        away = np.abs(np.indices(world.shape).reshape(world.dim, -1) - np.array(cell)[:, None]) / side
        weight_G = np.exp(-(np.minimum(away, 1 - away) ** 2).sum(0) / (2 * sigma**2))
        found_M = means_MG[:, np.ravel_multi_index(cell, world.shape)]
        np.testing.assert_allclose(found_M, sample.cost_MG @ weight_G / (sample.count_G @ weight_G), rtol=1e-9)


@pytest.mark.parametrize("world", [LINE, PLANE, SPACE], ids=lambda world: world.name)
def test_a_windows_means_are_as_noisy_as_those_of_a_cube(world: World) -> None:
    share = 4e-4
    # One query a cell, of variance 1: the mean of a cube with `share` of the G cells has the variance 1 / (share G).
    cells = world.cost_MG.shape[1]
    noise_MG = np.random.default_rng(2).normal(size=(3, cells))
    sample = Sample(np.ones(cells), noise_MG, noise_MG)
    # There are about 3 / share independent means; a variance of n of them is off by sqrt(2 / n).
    tolerance = 4 * np.sqrt(2 * share / 3)
    assert window_means(world, sample, noise_MG, share).var() == pytest.approx(1 / (share * cells), rel=tolerance)


def test_an_empty_window_takes_the_mean_of_all() -> None:
    count_G = np.zeros(LINE.cost_MG.shape[1])
    count_G[[7, 9]] = 1
    sums_MG = np.zeros((3, len(count_G)))
    sums_MG[:, 7] = [1, 0, 1]
    means_MG = window_means(LINE, Sample(count_G, sums_MG, sums_MG), sums_MG, 1e-5)
    expected = np.array([[1, 0, 1], [0, 0, 0], [0.5, 0, 0.5]])
    np.testing.assert_allclose(means_MG[:, [7, 9, 500]].T, expected, atol=1e-9)


def test_one_model_for_all_is_the_one_with_the_best_means() -> None:
    choice_G = best_single(everything_known(PLANE))
    assert set(choice_G.tolist()) == {int(PLANE.utility_MG.mean(1).argmax())}


def test_hold_out_narrows_the_window_with_more_queries() -> None:
    shares = []
    for n in (1_000, 1_000_000):
        generator = np.random.default_rng(3)
        shares.append(held_out_share(PLANE, PLANE.sample(n, generator), PLANE.sample(n // 4, generator)))
    assert shares[1] < shares[0]


def test_more_queries_help_the_plug_in_rule_and_not_the_controls() -> None:
    risks = {n: [simulate(PLANE, n, seed) for seed in range(2)] for n in (1_000, 64_000)}
    assert simulate(PLANE, 1_000, 1) == risks[1_000][1] != risks[1_000][0] and len(risks[1_000][0]) == len(POLICIES)
    few, many = (np.mean(of_seeds, axis=0) for of_seeds in risks.values())
    assert (many[:2] < few[:2] / 4).all()
    assert (many[[2, 4]] > few[[2, 4]] / 2).all()


def power_law(sizes: list[int], slope: float, seeds: int, spread: float) -> FloatArray:
    noise = np.exp(spread * np.random.default_rng(0).normal(size=(len(sizes), seeds)))
    return np.asarray(sizes, float)[:, None] ** slope * noise


def test_the_slope_of_a_noisy_power_law_lies_in_its_interval() -> None:
    sizes = [1000 * 4**power for power in range(6)]
    figure = slope_of(sizes, power_law(sizes, -0.5, seeds=20, spread=0.4))
    assert figure.low is not None and figure.high is not None
    assert figure.low < -0.5 < figure.high
    assert 0.005 < figure.high - figure.low < 0.2


def test_the_result_has_a_slope_for_each_world_and_says_so() -> None:
    sizes = [1000, 4000, 16000]
    law = power_law(sizes, LINE.rate, seeds=3, spread=0)
    flat = np.ones_like(law)
    result = as_result({LINE: np.stack([law, law / 2, flat, flat, flat], axis=2)}, sizes, [0, 1, 2], "command")
    (slopes,) = [row for row in result.rows if row.table == SLOPES]
    assert slopes.figures["best possible"].value == pytest.approx(-2 / 3)
    assert slopes.figures[POLICIES[0]].value == pytest.approx(-2 / 3)
    assert slopes.figures[POLICIES[2]].value == pytest.approx(0, abs=1e-12)
    (judgement,) = result.judgements
    assert judgement.verdict == "reproduced" and judgement.parts[0].figure.value == pytest.approx(0, abs=1e-9)
    assert judgement.parts[0].level == 0.33  # half of the 2/3 that a flat rule is short by
