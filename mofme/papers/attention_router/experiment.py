"""The same small language model with three routers: same beginning, batches, steps and rates; only the router differs.

Axis names: S seeds, P passages, T tokens, E experts, L layers.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mofme.core.moe import moe_layers, observe_routing, parameters
from mofme.core.routers import RouterKind
from mofme.core.weights import load_card
from mofme.errors import ModelError
from mofme.files import CARD_FILE
from mofme.language.scoring import FloatArray, TextScore
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm, save_lm
from mofme.language.small_lm_training import Corpus, Plan, learned_parts, make_corpus, score_passages, train
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import students_mean
from mofme.measure.study import plot
from mofme.papers.attention_router import ALONG, CLAIMED, OVER_SEEDS, TO_SEE, judge
from mofme.papers.attention_router.models import ROUTERS, SHAPE, load_entropy

TITLES = {"linear": "linear router", "mlp": "two-layer router", "attention": "attention router"}
PAIRS: tuple[tuple[RouterKind, RouterKind], ...] = (("attention", "linear"), ("attention", "mlp"), ("mlp", "linear"))
_TIMED_TOKENS = 1024
_POINTS = 5  # of the training, at which losses on held-back text are told
_ALONG = "held back, nats by tokens"

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

    `along` is the loss on all passages, in nats a token, by how many tokens it had read until then. `load_entropy` is
    that of the experts' shares of all choices, the mean of the layers: 1 even, 0 a single expert.
    """

    scores: Mapping[str, TextScore]
    along: Mapping[int, float]
    load_entropy: float
    parameters: int
    router_parameters: int
    training_seconds: float

    @property
    def score(self) -> TextScore:
        """All texts together."""
        return _together(self.scores)


@dataclass(frozen=True)
class Findings:
    """By router: what each seed measured, and CPU seconds (repeats,) to read 1,024 tokens."""

    arms: Mapping[RouterKind, Sequence[Measured]]
    seconds: Mapping[RouterKind, FloatArray]


def compare(setting: Setting, seeds: Sequence[int], folder: Path, say: Say) -> Findings:
    """Train and measure every router with every seed.

    `folder` keeps trained models by seed and router; those trained by the same plan are not trained again. Raises
    TableError for a text that is too short, ModelError where `folder` holds models of another plan.
    """
    vocabulary = Vocabulary.learn(learned_parts(list(setting.texts.values())), setting.shape.vocabulary)
    corpus = make_corpus(setting.texts, vocabulary, setting.plan.context, setting.passages)
    arms: dict[RouterKind, list[Measured]] = {router: [] for router in ROUTERS}
    for seed in seeds:
        for router in ROUTERS:
            path = folder / f"seed-{seed}" / router
            model = SmallLM(replace(setting.shape, router=router), seed)
            _train_unless_there(path, model, replace(setting.plan, seed=seed), setting, corpus, vocabulary, say)
            one = _measure(path, corpus)
            arms[router].append(one)
            say(f"seed {seed}, {router}: {one.score.nats:.4f} nats, load entropy {one.load_entropy:.3f}")
    timed = {router: load_lm(folder / f"seed-{seeds[0]}" / router)[0] for router in ROUTERS}
    return Findings(arms, _seconds(timed, corpus.learned_N, setting))


def _train_unless_there(
    path: Path, model: SmallLM, plan: Plan, setting: Setting, corpus: Corpus, vocabulary: Vocabulary, say: Say
) -> None:
    told = {**asdict(plan), "texts": sorted(setting.texts), "tokens learned from": len(corpus.learned_N)}
    if (path / CARD_FILE).is_file():
        card = load_card(path)
        differing = [name for name, value in told.items() if card.training.get(name) != value]
        differing += [] if card.arguments == asdict(model.shape) else ["shape"]
        if differing:
            raise ModelError(f"{path} was trained with another {', '.join(differing)}: take another folder")
        if _ALONG in card.training:
            return
    along: list[tuple[int, float]] = []

    def report(step: int, steps: int, nats: float) -> None:
        say(f"seed {plan.seed}, {path.name}: step {step} of {steps}, {nats:.3f} nats")
        if step * _POINTS >= steps * (len(along) + 1):
            along.append((step * plan.batch * plan.context, _together(_scores(model, corpus)).nats))

    began = time.process_time()
    losses = train(model, corpus.learned_N, plan, report)
    seconds = time.process_time() - began
    curve = [round(float(np.mean(part)), 4) for part in np.array_split(losses, min(20, len(losses)))]
    training = {**told, "seconds": round(seconds, 1), "learning curve": curve, _ALONG: along}
    save_lm(path, model, vocabulary, "that of the texts", training, {})


def _measure(path: Path, corpus: Corpus) -> Measured:
    model, _ = load_lm(path)
    with observe_routing(model) as observed:
        scores = _scores(model, corpus)
    training = load_card(path).training
    along = dict(training[_ALONG])
    along[max(along)] = _together(scores).nats  # as saved, in half precision
    layers = moe_layers(model)
    loads = [torch.cat([one.decision.chosen_TE for one in observed if one.layer == name]) for name in layers]
    entropy = float(np.mean([load_entropy(chosen_TE) for chosen_TE in loads]))
    of_routers = sum(parameters(layer.router) for layer in layers.values())
    return Measured(scores, along, entropy, parameters(model), of_routers, float(training["seconds"]))


def _scores(model: SmallLM, corpus: Corpus) -> dict[str, TextScore]:
    return {name: score_passages(model, passages_PT) for name, passages_PT in corpus.held_back.items()}


def _together(scores: Mapping[str, TextScore]) -> TextScore:
    both = [(score.nats_W, score.tokens_W) for score in scores.values()]
    return TextScore(*(np.concatenate(part) for part in zip(*both, strict=True)))


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


def as_result(found: Findings, seeds: Sequence[int], command: str) -> Result:
    """Everything that `compare` measured, beside the paper's claim."""
    rows = []
    for router in ROUTERS:
        arms = found.arms[router]
        losses = {"all texts": _mean(arms, lambda one: one.score.nats)}
        losses |= {text: _mean(arms, lambda one, text=text: one.scores[text].nats) for text in arms[0].scores}
        rows.append(Row("held-out loss, nats a token", TITLES[router], losses))
    rows += [
        Row("differences", f"{TITLES[first]} against {TITLES[second]}", _difference(found, first, second))
        for first, second in PAIRS
    ]
    for tokens in found.arms["linear"][0].along:
        linear = _mean(found.arms["linear"], lambda one, tokens=tokens: one.along[tokens])
        rows.append(Row(ALONG, f"{tokens:,} tokens", {"linear router": linear, **_gains_at(found, tokens)}))
    rows += [Row("loads and cost", TITLES[router], _cost(found, router)) for router in ROUTERS]
    result = Result(
        room="attention_router",
        paper="Yuan 2.0-M32 (arXiv 2405.17976)",
        claim="A router that accounts for the correlation between experts selects them better than a linear one: with "
        f"8 experts a test loss of 2.109 against 2.117, {CLAIMED} nats less",
        verdict="",
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; Student's over the paired seeds or, where it says so, over the passages, and over the repeats "
        "of the time",
        machine=this_machine(threads=1),
    )
    return judge(result)


def _mean(arms: Sequence[Measured], of: Callable[..., float]) -> Figure:
    return students_mean(np.array([of(one) for one in arms]))


def _difference(found: Findings, first: RouterKind, second: RouterKind) -> dict[str, Figure]:
    """What the first gains over the second: positive where it predicts better."""
    pairs = zip(found.arms[first], found.arms[second], strict=True)
    gain_SP = np.array([(theirs.score.nats_W - ours.score.nats_W) / ours.score.tokens_W for ours, theirs in pairs])
    over_seeds = students_mean(gain_SP.mean(1))
    figures = {OVER_SEEDS: over_seeds, "gain, nats a token (passages)": students_mean(gain_SP.mean(0))}
    if over_seeds.low is not None:
        figures[TO_SEE] = Figure(over_seeds.value - over_seeds.low)
    return figures


def _gains_at(found: Findings, tokens: int) -> dict[str, Figure]:
    """By pair, what the first gained over the second in nats a token when both had read so many, over the seeds."""
    nats_RS = {router: np.array([one.along[tokens] for one in found.arms[router]]) for router in ROUTERS}
    return {f"{TITLES[a]} against {TITLES[b]}, gain": students_mean(nats_RS[b] - nats_RS[a]) for a, b in PAIRS}


def _cost(found: Findings, router: RouterKind) -> dict[str, Figure]:
    arms, linear = found.arms[router], found.seconds["linear"]
    return {
        "load entropy": students_mean(np.array([one.load_entropy for one in arms])),
        "parameters": Figure(arms[0].parameters),
        "of these in routers": Figure(arms[0].router_parameters),
        "CPU time of 1,024 tokens, ms": students_mean(1000 * found.seconds[router]),
        "time against linear": students_mean(found.seconds[router] / linear),
        "training, CPU s": students_mean(np.array([one.training_seconds for one in arms])),
    }


def plot_losses(found: Findings, path: Path) -> None:
    """What each router gains over another along the training, with its interval, and the published gain, as a PNG."""
    tokens = list(found.arms["linear"][0].along)
    with plot(path, 8, 3.5) as (axes,):
        for name in _gains_at(found, tokens[0]):
            figures = [_gains_at(found, read)[name] for read in tokens]
            reach = np.nan_to_num([figure.half for figure in figures], posinf=0)
            axes.errorbar(tokens, [figure.value for figure in figures], reach, label=name, marker="o", capsize=4)
        axes.axhline(0, color="0.6", linewidth=1)
        axes.axhline(CLAIMED, color="0.4", linestyle=":", label="published: attention against linear")
        axes.set(xlabel="tokens read", ylabel="nats a token, held-out text")
        axes.legend(fontsize="small")
