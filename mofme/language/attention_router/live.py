"""A minute of training on a text of one's own: the three routers side by side, batch for batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from mofme.core.routers import RouterKind
from mofme.language.attention_router.explanation import shipped_models
from mofme.language.attention_router.study import ROUTERS, SHAPE
from mofme.language.scoring import TextScore
from mofme.language.small_lm import SmallLM, Vocabulary
from mofme.language.small_lm_training import Plan, Stopped, make_corpus, score_passages, train

# About 20 s a router on one core. A twentieth of the study's steps says how learning begins, not which router wins.
SHORT = Plan(steps=150, batch=8, context=64, warm_up=20)
_PASSAGES = 12


@dataclass(frozen=True)
class ShortRun:
    """By router: the loss of every step in nats per token, and what passages of the text's held-back end cost."""

    losses: Mapping[RouterKind, tuple[float, ...]]
    scores: Mapping[RouterKind, TextScore]


def train_briefly(
    text: str,
    plan: Plan = SHORT,
    report: Callable[[RouterKind, int, int, float], None] | None = None,
    stopped: Stopped | None = None,
    vocabulary: Vocabulary | None = None,
) -> ShortRun:
    """Train a model with each router from the same beginning on the same batches of `text`.

    `report` gets the router, step, steps and the mean loss of the latest steps. The vocabulary is the shipped models'.
    Raises TableError for a text of less than about 40,000 characters, Cancelled as soon as `stopped` says so.
    """
    vocabulary = vocabulary or shipped_models()["linear"][1]
    corpus = make_corpus({"the text": text}, vocabulary, plan.context, _PASSAGES)
    losses: dict[RouterKind, tuple[float, ...]] = {}
    scores: dict[RouterKind, TextScore] = {}
    for router in ROUTERS:

        def tell(step: int, steps: int, nats: float, router: RouterKind = router) -> None:
            if report is not None:
                report(router, step, steps, nats)

        model = SmallLM(replace(SHAPE, router=router, vocabulary=len(vocabulary)), plan.seed)
        losses[router] = tuple(train(model, corpus.learned_N, plan, tell, stopped))
        scores[router] = score_passages(model, corpus.held_back["the text"])
    return ShortRun(losses, scores)
