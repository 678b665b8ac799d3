"""A router of many models, asked about two of them: the form in which it can be probed beside the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mofme.errors import TableError
from mofme.language.llm_routing.baselines import choose_pair
from mofme.language.llm_routing.carrot import Estimate
from mofme.language.llm_routing.robustness.subjects import Calibrated, threshold_for
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import FloatArray, RoutingTable


@dataclass(frozen=True)
class BetweenTwo:
    """The router, ready to decide, and the two models that it decides between."""

    subject: Calibrated
    strong: str
    weak: str


def between_two(
    name: str, estimate: Callable[[Queries], Estimate], models: Sequence[str], queries: Queries, share: float = 0.5
) -> BetweenTwo:
    """The strong model is the one expected to be best on these queries, the weak one the cheaper one that goes best
    with it; `share` of these very queries goes to the strong one. Raises TableError for a router of one model."""
    if len(models) < 2:
        raise TableError(f"{name} knows one model: there is nothing to choose")
    expected = estimate(queries)
    numbers = tuple(str(number) for number in range(len(queries)))
    quality_NM, cost_NM = expected.quality_NM.clip(0, 1), expected.cost_NM.clip(0)
    pair = choose_pair(RoutingTable(name, numbers, tuple(models), quality_NM, cost_NM, ("",) * len(queries)))

    def difference(asked: Queries) -> FloatArray:
        quality_NM = estimate(asked).quality_NM
        return quality_NM[:, pair.strong] - quality_NM[:, pair.weak]

    subject = Calibrated(name, difference, threshold_for(difference(queries), share))
    return BetweenTwo(subject, models[pair.strong], models[pair.weak])
