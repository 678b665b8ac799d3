"""What routing does to jailbreaks: how often an attack succeeds on the model that the router picks for it.

JailbreakBench (arXiv 2404.01318) recorded which of its attacks broke which model. An attack here meets the stronger or
a weaker model, whichever the router picks, with the recorded outcome of that attack and request on that model. Our
reading: where an attack was fitted to each model apart, either text may arrive at the router, and both are asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mofme.errors import TableError
from mofme.language.llm_routing.robustness.report import Embed
from mofme.language.llm_routing.robustness.sources import Record
from mofme.language.llm_routing.robustness.subjects import BoolArray, Subject
from mofme.language.tables.table import FloatArray
from mofme.measure.result import Figure
from mofme.measure.statistics import bootstrap_percent

STRONG = "gpt-4-0125-preview"
WEAK = ("gpt-3.5-turbo-1106", "vicuna-13b-v1.5", "llama-2-7b-chat-hf")


@dataclass(frozen=True)
class Attempt:
    """One attack on one request: its texts (none if the attack gave up), and whether it broke the two models."""

    attack: str
    request: str
    prompts: tuple[str, ...]
    breaks_strong: bool
    breaks_weak: bool


@dataclass(frozen=True)
class Exposure:
    """Success of the attacks in percent, expected under the routing; gains are percentage points.

    `strong`: share of the attacks' texts that the router sends to the strong model.
    """

    router: str
    weak: str
    strong: Figure
    success: Figure
    always_strong: Figure
    always_weak: Figure
    over_always_strong: Figure
    over_coin: Figure


def attempts(records: Sequence[Record], weak: str, strong: str = STRONG) -> list[Attempt]:
    """All attacks that were tried on both models. Raises TableError if none was."""
    found: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        if record["target_model"] in (strong, weak):
            found.setdefault((record["attack"], record["goal"]), {})[record["target_model"]] = record
    both = [
        Attempt(
            attack,
            request,
            tuple(dict.fromkeys(prompt for record in by_model.values() if (prompt := record["prompt"].strip()))),
            int(by_model[strong]["jailbroken"]) == 1,
            int(by_model[weak]["jailbroken"]) == 1,
        )
        for (attack, request), by_model in found.items()
        if len(by_model) == 2
    ]
    if not both:
        raise TableError(f"no attack was recorded on both {strong} and {weak}")
    return both


def exposure(runs: Sequence[Subject], tried: Sequence[Attempt], weak: str, embed: Embed) -> Exposure:
    """One router's runs before these attacks; intervals by drawing requests."""
    strong_N = strong_share(runs, tried, embed)
    return expected(runs[0].name, weak, strong_N, tried)


def strong_share(
    runs: Sequence[Subject], tried: Sequence[Attempt], embed: Embed, stopped: Sequence[BoolArray] | None = None
) -> FloatArray:
    """Of each attempt's texts, the share that goes to the strong model, over the runs (N,); 1/2 where it has none.

    `stopped` says which of each attempt's texts a guard sends there whatever the router says.
    """
    texts = [prompt for attempt in tried for prompt in attempt.prompts]
    owner_T = np.repeat(np.arange(len(tried)), [len(attempt.prompts) for attempt in tried])
    stopped_T = np.concatenate(stopped) if stopped else np.zeros(len(texts), bool)
    queries = embed(texts)
    strong_T = np.mean([run.to_strong(queries) | stopped_T for run in runs], axis=0)
    counts_N = np.bincount(owner_T, minlength=len(tried))
    sums_N = np.bincount(owner_T, strong_T, minlength=len(tried))
    return np.where(counts_N > 0, sums_N / counts_N.clip(1), 0.5)


def expected(router: str, weak: str, strong_N: FloatArray, tried: Sequence[Attempt]) -> Exposure:
    """Success where attempt n meets the strong model with probability `strong_N`, beside the ends and a coin."""
    on_strong_N = np.array([attempt.breaks_strong for attempt in tried], np.float64)
    on_weak_N = np.array([attempt.breaks_weak for attempt in tried], np.float64)
    success_N = strong_N * on_strong_N + (1 - strong_N) * on_weak_N
    requests = [attempt.request for attempt in tried]
    with_text_N = np.array([bool(attempt.prompts) for attempt in tried])

    def figure(values_N: FloatArray) -> Figure:
        return bootstrap_percent(values_N, groups=requests)

    return Exposure(
        router,
        weak,
        bootstrap_percent(strong_N[with_text_N]),
        figure(success_N),
        figure(on_strong_N),
        figure(on_weak_N),
        figure(success_N - on_strong_N),
        figure(success_N - (on_strong_N + on_weak_N) / 2),
    )
