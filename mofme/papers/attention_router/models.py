"""The three models that differ in their routers alone: as they ship, or after a minute of training on a text.

What their routers decide on a text: weights of every token, loads, and which expert listens to which. Axis names: T
tokens, E experts, L layers. An expert's number means nothing across the models: only loads and losses can be compared.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from mofme.core.moe import moe_layers, observe_routing
from mofme.core.routers import AttentionRouter, RouterKind
from mofme.errors import ModelError
from mofme.files import WEIGHTS
from mofme.language.scoring import TextScore
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm
from mofme.language.small_lm_training import Plan, Stopped, make_corpus, next_token_loss, score_passages, train

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
    report: Callable[[RouterKind, int, int, float], None] = lambda *_: None,
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
        model = SmallLM(replace(SHAPE, router=router, vocabulary=len(vocabulary)), plan.seed)
        losses[router] = tuple(train(model, corpus.learned_N, plan, partial(report, router), stopped))
        scores[router] = score_passages(model, corpus.held_back["the text"])
    return ShortRun(losses, scores)


@dataclass(frozen=True)
class RouterOnText:
    """One model's routing of one text.

    `weights_LTE` is 0 for experts not chosen; `load_LE` each expert's share of all choices; `entropy_L` how even those
    are, 1 even, 0 a single expert. `nats_T` is the loss of every token but the first, given those before it.
    `attention_LEE` is, of an attention router, how much expert e's score took from expert f's value: [layer, e, f],
    the mean of the tokens, each row summing to 1.
    """

    weights_LTE: Tensor
    load_LE: Tensor
    entropy_L: tuple[float, ...]
    nats_T: Tensor
    attention_LEE: Tensor | None = None


@dataclass(frozen=True)
class Explanation:
    """A text's tokens, and by router what was made of them."""

    tokens: tuple[str, ...]
    routers: Mapping[str, RouterOnText]


def explain(text: str, folder: Path = SHIPPED, most: int = 256) -> Explanation:
    """Show a text to the trained models below `folder`: at most its first `most` tokens.

    Raises ModelError for a text of fewer than two tokens, or if a model is missing or damaged.
    """
    models = shipped_models(folder)
    vocabulary = next(iter(models.values()))[1]
    ids = vocabulary.encode(text)[:most]
    if len(ids) < 2:
        raise ModelError("a text of at least two tokens is needed: type some words")
    routers = {router: _on_text(model, torch.tensor([ids])) for router, (model, _) in models.items()}
    return Explanation(tuple(vocabulary.decode([one]) for one in ids), routers)


@torch.inference_mode()
def _on_text(model: SmallLM, ids_1T: Tensor) -> RouterOnText:
    with observe_routing(model, tokens=True) as observed:
        model(ids_1T)
    layers = moe_layers(model)
    heard = [
        listening(router, cast(Tensor, one.x_TD))
        for one in observed
        if isinstance(router := layers[one.layer].router, AttentionRouter)
    ]
    weights_LTE = torch.stack([one.decision.weights_TE for one in observed])
    chosen_LTE = weights_LTE != 0
    return RouterOnText(
        weights_LTE,
        chosen_LTE.float().mean(1) / model.shape.top_k,
        tuple(load_entropy(chosen_TE) for chosen_TE in chosen_LTE),
        next_token_loss(model, ids_1T)[0],
        torch.stack(heard) if heard else None,
    )


def listening(router: AttentionRouter, x_TD: Tensor) -> Tensor:
    """The mean over tokens of softmax(q k^T) (E, E): row e says whose values expert e's score is made of."""
    query_TE, key_TE, _ = router.query_key_value(x_TD).chunk(3, dim=-1)
    attention_EE: Tensor = (query_TE[:, :, None] * key_TE[:, None, :]).softmax(-1).mean(0)
    return attention_EE


def load_entropy(chosen_TE: Tensor) -> float:
    """Entropy of the experts' shares of all choices over the logarithm of their number: 1 even, 0 a single expert."""
    share_E = chosen_TE.double().sum(0) / chosen_TE.sum()
    return float(-torch.special.xlogy(share_E, share_E).sum() / np.log(len(share_E)))
