"""The shipped router and simple ones, probed with prompts of known category and difficulty."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import BoolArray, FloatArray
from mofme.measure.result import Figure
from mofme.papers.carrot.baselines import ComplexityRule
from mofme.papers.carrot.trained_router import TrainedRouter
from mofme.papers.router_robustness.assessment import REWORDINGS, Assessment, assess
from mofme.papers.router_robustness.jailbreaks import stopped_by_phrases
from mofme.papers.router_robustness.privacy import find_private
from mofme.papers.router_robustness.probes import Probe
from mofme.papers.router_robustness.routers import (
    Always,
    Calibrated,
    CoinFlip,
    Guarded,
    TwoModelRouter,
    between_two,
    threshold_for,
)
from mofme.papers.router_robustness.tab import CARROT, COIN, GUARDED, ROUTERS, RULE, STRONG
from mofme.ui.runs import Job

_BATCH = 32


@dataclass(frozen=True)
class Probed:
    """What probing showed, and between which two models the routers chose."""

    assessment: Assessment
    strong: str
    weak: str

    def to_strong(self, router: str, category: str, difficulty: str | None = None) -> Figure | None:
        """Prompts that go to the strong model, in percent; None where nothing was probed."""
        kinds = {(probe.category, level) for probe in self.assessment.probes for level in (None, probe.difficulty)}
        return self.assessment.share(router, category, difficulty) if (category, difficulty) in kinds else None

    def to_weak(self, router: str, category: str) -> Figure | None:
        share = self.to_strong(router, category)
        return share and share.map(lambda strong: 100 - strong)


def probe(router: TrainedRouter, names: Sequence[str], probes: Sequence[Probe], share: float, job: Job) -> Probed:
    """Let the routers named, of ROUTERS, choose for all prompts as they are and reworded.

    Thresholds are set on these very prompts, so that `share` of them goes to the strong model. Raises MofmeError when
    the job is stopped, or its time is up.
    """
    embed = _Embedding(router, len(probes) * (1 + len(REWORDINGS)), job)
    plain = embed([probe.prompt for probe in probes])
    two = between_two(CARROT, router.estimate, router.models, plain, share)
    rule = ComplexityRule()
    make: dict[str, Callable[[], TwoModelRouter]] = {
        CARROT: lambda: two.router,
        GUARDED: lambda: Guarded(GUARDED, two.router, _stopped),
        RULE: lambda: Calibrated(RULE, rule.score, threshold_for(rule.score(plain), share)),
        COIN: lambda: CoinFlip(share=share),
        STRONG: lambda: Always(STRONG, True),
    }
    return Probed(assess([make[name]() for name in ROUTERS if name in names], probes, embed), two.strong, two.weak)


def _stopped(queries: Queries) -> BoolArray:
    """What rules without a model keep off the weak one: the usual words of jailbreaks, and private data."""
    private_N = np.array([bool(find_private(prompt)) for prompt in queries.prompts])
    return stopped_by_phrases(queries.prompts) | private_N


class _Embedding:
    """Embeds by batches, so that work can be seen and stopped, and every text once."""

    def __init__(self, router: TrainedRouter, total: int, job: Job) -> None:
        self._router, self._total, self._job = router, total, job
        self._known: dict[str, FloatArray] = {}

    def __call__(self, prompts: Sequence[str]) -> Queries:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        for start in range(0, len(new), _BATCH):
            self._job.report(len(self._known) / self._total, "Reading the prompts, as they are and reworded")
            batch = new[start : start + _BATCH]
            self._known.update(zip(batch, self._router.queries(batch).embeddings_ND, strict=True))
        return Queries(prompts, np.stack([self._known[prompt] for prompt in prompts]))
