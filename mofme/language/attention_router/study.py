"""The same small language model with three routers: same beginning, batches, steps and rates; only the router differs.

Axis names: P passages, T tokens, E experts, L layers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mofme.core.moe import moe_layers, observe_routing, parameters
from mofme.core.routers import RouterKind
from mofme.core.routing import RoutingDecision
from mofme.core.weights import load_card
from mofme.files import CARD_FILE
from mofme.language.scoring import FloatArray, TextScore
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm, save_lm
from mofme.language.small_lm_training import Corpus, Plan, learned_parts, make_corpus, score_passages, train

# The MLP has as many parameters as the attention router.
ROUTERS: tuple[RouterKind, ...] = ("linear", "mlp", "attention")
SHAPE = Shape(vocabulary=512, dim=96, layers=3, heads=4, hidden=64, experts=8, top_k=2)
_TIMED_TOKENS = 1024

Say = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What all arms share. The paper balances no loads; `plan.balance` does so for all arms alike."""

    texts: Mapping[str, str]
    plan: Plan = field(default_factory=lambda: Plan(batch=8))
    shape: Shape = SHAPE
    passages: int = 100
    repeats: int = 9


@dataclass(frozen=True)
class Measured:
    """One arm with one seed: its loss on the passages of each text, and how evenly it uses its experts.

    `load_entropy` is that of the experts' shares of all choices, the mean of the layers: 1 even, 0 a single expert.
    """

    scores: Mapping[str, TextScore]
    load_entropy: float
    parameters: int
    router_parameters: int
    training_seconds: float

    @property
    def score(self) -> TextScore:
        """All texts together."""
        both = [(score.nats_W, score.tokens_W) for score in self.scores.values()]
        return TextScore(*(np.concatenate(part) for part in zip(*both, strict=True)))


@dataclass(frozen=True)
class Study:
    """By router: what each seed measured, and CPU seconds (repeats,) to read 1,024 tokens."""

    arms: Mapping[RouterKind, Sequence[Measured]]
    seconds: Mapping[RouterKind, FloatArray]
    setting: Setting


def study(setting: Setting, seeds: Sequence[int], folder: Path, say: Say) -> Study:
    """Train and measure every router with every seed.

    `folder` keeps trained models by seed and router; those trained by the same plan are not trained again. Raises
    TableError for a text that is too short.
    """
    vocabulary = Vocabulary.learn(learned_parts(list(setting.texts.values())), setting.shape.vocabulary)
    corpus = make_corpus(setting.texts, vocabulary, setting.plan.context, setting.passages)
    arms: dict[RouterKind, list[Measured]] = {router: [] for router in ROUTERS}
    for seed in seeds:
        for router in ROUTERS:
            path = folder / f"seed-{seed}" / router
            _train_unless_there(
                path, router, Plan(**{**asdict(setting.plan), "seed": seed}), setting, corpus, vocabulary, say
            )
            one = _measure(path, corpus)
            arms[router].append(one)
            say(f"seed {seed}, {router}: {one.score.nats:.4f} nats, load entropy {one.load_entropy:.3f}")
    timed = {router: load_lm(folder / f"seed-{seeds[0]}" / router)[0] for router in ROUTERS}
    return Study(arms, _seconds(timed, corpus.learned_N, setting), setting)


def _train_unless_there(
    path: Path, router: RouterKind, plan: Plan, setting: Setting, corpus: Corpus, vocabulary: Vocabulary, say: Say
) -> None:
    told = {**asdict(plan), "texts": sorted(setting.texts), "tokens learned from": len(corpus.learned_N)}
    shape = Shape(**{**asdict(setting.shape), "router": router})
    if (path / CARD_FILE).is_file():
        card = load_card(path)
        if told.items() <= card.training.items() and card.arguments == asdict(shape):
            return
    model = SmallLM(shape, plan.seed)
    began = time.process_time()
    losses = train(
        model,
        corpus.learned_N,
        plan,
        lambda step, steps, nats: say(f"seed {plan.seed}, {router}: step {step} of {steps}, {nats:.3f} nats"),
    )
    seconds = time.process_time() - began
    curve = [round(float(np.mean(part)), 4) for part in np.array_split(losses, min(20, len(losses)))]
    training = {**told, "seconds": round(seconds, 1), "learning curve": curve}
    save_lm(path, model, vocabulary, "that of the texts", training, {})


def _measure(path: Path, corpus: Corpus) -> Measured:
    model, _ = load_lm(path)
    with observe_routing(model) as observed:
        scores = {name: score_passages(model, passages_PT) for name, passages_PT in corpus.held_back.items()}
    layers: dict[str, list[RoutingDecision]] = {}
    for one in observed:
        layers.setdefault(one.layer, []).append(one.decision)
    loads = [torch.cat([decision.chosen_TE for decision in found]) for found in layers.values()]
    return Measured(
        scores,
        float(np.mean([load_entropy(chosen_TE) for chosen_TE in loads])),
        parameters(model),
        sum(parameters(layer.router) for layer in moe_layers(model).values()),
        float(load_card(path).training["seconds"]),
    )


def load_entropy(chosen_TE: Tensor) -> float:
    """Entropy of the experts' shares of all choices over the logarithm of their number: 1 even, 0 a single expert."""
    share_E = chosen_TE.double().sum(0) / chosen_TE.sum()
    return float(-torch.special.xlogy(share_E, share_E).sum() / np.log(len(share_E)))


@torch.inference_mode()
def _seconds(models: Mapping[RouterKind, SmallLM], ids_N: Tensor, setting: Setting) -> dict[RouterKind, FloatArray]:
    """In turn, so that whatever else the machine does hits all alike; the first round warms up."""
    ids_BT = ids_N[: _TIMED_TOKENS // setting.plan.context * setting.plan.context].view(-1, setting.plan.context)
    taken: dict[RouterKind, list[float]] = {router: [] for router in models}
    for _ in range(setting.repeats + 1):
        for router, model in models.items():
            began = time.process_time()
            model(ids_BT)
            taken[router].append(time.process_time() - began)
    return {router: np.array(values[1:]) for router, values in taken.items()}
