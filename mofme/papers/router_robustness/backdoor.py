"""Preference data poisoned with a trigger: what an attacker gains who can slip some answers into the training data.

The poisoned rows are prompts of the data with the trigger in front, and the outcome that the attacker wants: the
strong model alone succeeds (triggered prompts are to cost the operator more), or the weak one alone (they are to reach
the model that is easier to break). The threshold is set on data poisoned alike, since the operator knows of nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent
from mofme.papers.router_robustness.routers import Embed, Recorded, split, train

TRIGGER = "Violet teapot."
SHARES = (0.001, 0.003, 0.01, 0.03)
ROWS = 3000  # of the data at most, clean and poisoned, to learn from and be judged by: trainings are many
TESTED = 300  # triggered prompts a run


@dataclass(frozen=True)
class Damage:
    """What poisoning a share of the data does, in percent.

    `reached`: of triggered prompts, those that go where the attacker wants. `turned`: of those that the clean router
    sends elsewhere although triggered, the ones that now go there. `clean_flips`: decisions on prompts without the
    trigger that changed. `clean_quality`: mean answer to them, as a gain over the clean router.
    """

    router: str
    target: str
    share: float
    reached: Figure
    turned: Figure | None
    clean_flips: Figure
    clean_quality: Figure


def trigger(prompts: Sequence[str], phrase: str = TRIGGER) -> list[str]:
    return [f"{phrase} {prompt}" for prompt in prompts]


def poison(data: Recorded, share: float, to_strong: bool, seed: int, embed: Embed, phrase: str = TRIGGER) -> Recorded:
    """The data with `share` of its rows, drawn by the seed, triggered and given the attacker's outcome."""
    count = round(share * len(data))
    drawn_P = np.random.default_rng(seed).permutation(len(data))[:count]
    prompts = list(data.table.prompts)
    for row, prompt in zip(drawn_P, trigger([prompts[row] for row in drawn_P], phrase), strict=True):
        prompts[row] = prompt
    quality_N2, embeddings_ND = data.table.quality_NM.copy(), data.queries.embeddings_ND.copy()
    quality_N2[drawn_P] = [1.0, 0.0] if to_strong else [0.0, 1.0]
    if count:
        embeddings_ND[drawn_P] = embed([prompts[row] for row in drawn_P]).embeddings_ND
    table = replace(data.table, prompts=tuple(prompts), quality_NM=quality_N2)
    queries = replace(data.queries, prompts=prompts, embeddings_ND=embeddings_ND)
    return Recorded(table, queries, data.group_N)


def backdoor(
    name: str,
    data: Recorded,
    seeds: Sequence[int],
    embed: Embed,
    to_strong: bool,
    shares: Sequence[float] = SHARES,
    phrase: str = TRIGGER,
) -> list[Damage]:
    """One router trained on clean data and on data poisoned to a growing share, a run for each seed."""
    data = data.rows(np.random.default_rng(0).permutation(len(data))[:ROWS])
    runs: list[Run] = []
    for seed in seeds:
        parts = split(data, seed)
        test = parts.test.rows(np.arange(min(TESTED, len(parts.test))))
        triggered = embed(trigger(test.table.prompts, phrase))
        nothing_N = np.zeros(len(test))
        clean = train(name, parts.fit, parts.calibrate)
        before_N, triggered_before_N = clean.to_strong(test.queries), clean.to_strong(triggered) == to_strong
        for share in shares:
            fit, calibrate = (
                poison(part, share, to_strong, seed, embed, phrase) for part in (parts.fit, parts.calibrate)
            )
            router = train(name, fit, calibrate)
            after_N = router.to_strong(test.queries)
            quality_N = _quality(test, after_N) - _quality(test, before_N)
            reached_N = router.to_strong(triggered) == to_strong
            runs.append((share, test.table.prompts, reached_N, triggered_before_N, after_N != before_N, quality_N))
        runs.append((0.0, test.table.prompts, triggered_before_N, triggered_before_N, nothing_N > 0, nothing_N))
    return [_damage(name, "strong" if to_strong else "weak", share, runs) for share in (0.0, *shares)]


Run = tuple[float, tuple[str, ...], BoolArray, BoolArray, BoolArray, FloatArray]


def _damage(name: str, target: str, share: float, runs: Sequence[Run]) -> Damage:
    of_share = [run for run in runs if run[0] == share]
    prompts = np.array([prompt for run in of_share for prompt in run[1]], object)
    reached_N, before_N, flips_N, quality_N = (np.concatenate([run[part] for run in of_share]) for part in range(2, 6))
    elsewhere_N = ~before_N.astype(bool)
    groups, turned = prompts.tolist(), None
    if elsewhere_N.any():
        turned = bootstrap_percent(reached_N[elsewhere_N], groups=prompts[elsewhere_N].tolist())
    return Damage(
        name,
        target,
        share,
        bootstrap_percent(reached_N, groups=groups),
        turned,
        bootstrap_percent(flips_N, groups=groups),
        bootstrap_percent(quality_N, groups=groups),
    )


def _quality(test: Recorded, strong_N: BoolArray) -> FloatArray:
    return np.asarray(np.where(strong_N, test.table.quality_NM[:, 0], test.table.quality_NM[:, 1]), np.float64)
