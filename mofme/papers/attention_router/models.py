"""The three models that differ in their routers alone: as they ship, or after a minute of training on a text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from mofme.core.routers import RouterKind
from mofme.files import WEIGHTS
from mofme.language.scoring import TextScore
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm
from mofme.language.small_lm_training import Plan, Stopped, make_corpus, score_passages, train

SHIPPED = WEIGHTS / "attention-router"
# The MLP has as many parameters as the attention router.
ROUTERS: tuple[RouterKind, ...] = ("linear", "mlp", "attention")
SHAPE = Shape(vocabulary=512, dim=96, layers=3, heads=4, hidden=64, experts=8, top_k=2)
# About 20 s a router on one core. A twentieth of the study's steps says how learning begins, not which router wins.
SHORT = Plan(steps=150, batch=8, context=64, warm_up=20)
_PASSAGES = 12


@dataclass(frozen=True)
class ShortRun:
    """By router: the loss of every step in nats per token, and what passages of the text's held-back end cost."""

    losses: Mapping[RouterKind, tuple[float, ...]]
    scores: Mapping[RouterKind, TextScore]


@lru_cache
def shipped_models(folder: Path = SHIPPED) -> Mapping[str, tuple[SmallLM, Vocabulary]]:
    """By router, the trained model and its vocabulary, which all share."""
    return {router: load_lm(folder / router) for router in ROUTERS}


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
