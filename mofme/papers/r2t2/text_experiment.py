"""How much re-routing gains on questions that neither references nor tuning have seen.

References are questions that the model answers rightly; every question measured is written down at once, so that a
stopped run goes on where it was, also with more questions.

A question is answered in one pass: with its choices it is one row of tokens, in which a choice sees the question and
itself, not the others. So the mean over the row's tokens is the routing of the question, known before the answer is.
Our readings: only the last layers are re-routed, so that what enters them is computed once; and as a converted layer
has a stand-in for an idle expert, a gate g between 0 and 1 gives g of the expert and 1 - g of its stand-in.

Axis names: N references, R routing weights, k neighbours, L tokens of a row, D features, C choices, A tokens of these.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core import rerouting
from mofme.core.gated_experts import GatedFeedForwardExperts
from mofme.core.moe import moe_layers
from mofme.core.rerouting import LossOf, Neighbours, frozen, nearest
from mofme.core.weights import load_card
from mofme.errors import ModelError
from mofme.files import CARD_FILE
from mofme.language.pretrained import PretrainedLM, decoder_layers
from mofme.language.sentence_encoder import SentenceEncoder
from mofme.language.text import Question
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, paired_shares, students_mean, wilson
from mofme.measure.study import Log, Study, fingerprint
from mofme.papers.r2t2 import judge_text


@dataclass(frozen=True)
class AnswerRow:
    """A question as it enters the last layers. `before_A` is the place whose logits say a choice's token `token_A`;
    `choice_A` the choice that it belongs to; `share_C` the characters of each choice in units of their mean."""

    hidden_LD: Tensor
    position_L: Tensor
    sees_LL: Tensor
    before_A: Tensor
    token_A: Tensor
    choice_A: Tensor
    share_C: Tensor
    answer: int


class Tail(nn.Module):
    """The last `layers` of a model: row -> score (C,) of every choice after the question. A score is the log-likelihood
    per character, as in lm-evaluation-harness' `acc_norm`, times the mean characters of a choice, so that its softmax
    is as sharp as that of the log-likelihoods."""

    def __init__(self, lm: PretrainedLM, layers: int) -> None:
        super().__init__()
        every = decoder_layers(lm.model)
        if not 1 <= layers <= len(every):
            raise ModelError(f"{lm.name} has {len(every)} layers: {layers} of them cannot be re-routed")
        self.lm = [lm]  # in a list, so that its other layers are no part of this module
        self.first = len(every) - layers
        self.layers = nn.ModuleList(list(lm.model.model.layers)[self.first :])
        if not moe_layers(self.layers):
            raise ModelError(f"{lm.name} has no experts to re-route: convert it first by `mofme moefy`")
        self.norm = lm.model.model.norm
        self.head = lm.model.lm_head

    @torch.no_grad()
    def read(self, question: Question) -> AnswerRow:
        """Run the layers before."""
        lm, model = self.lm[0], self.lm[0].model.model
        ids = lm.tokens(question.context)
        context, positions, belongs, before = len(ids), list(range(len(ids))), [-1] * len(ids), list[int]()
        for number, choice in enumerate(question.choices):
            tokens, start = lm.tokens(f"{question.context} {choice}")[context:], len(ids)
            before += [context - 1, *range(start, start + len(tokens) - 1)]
            ids += tokens
            positions += range(context, context + len(tokens))
            belongs += [number] * len(tokens)
        ids_L, position_L, belongs_L, before_A = map(torch.tensor, (ids, positions, belongs, before))
        earlier_LL = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        sees_LL = earlier_LL & ((belongs_L == -1) | (belongs_L == belongs_L[:, None]))
        layers = list(model.layers)[: self.first]
        hidden_LD = self._through(layers, model.embed_tokens(ids_L[None]), position_L, sees_LL)[0]
        length_C = torch.tensor([float(max(1, len(choice))) for choice in question.choices])
        share_C = length_C / length_C.mean()
        ends = ids_L[context:], belongs_L[context:]
        return AnswerRow(hidden_LD, position_L, sees_LL, before_A, *ends, share_C, question.answer)

    def forward(self, row: AnswerRow) -> Tensor:
        hidden_LD = self._through(list(self.layers), row.hidden_LD[None], row.position_L, row.sees_LL)[0]
        logits_AV = self.head(self.norm(hidden_LD[row.before_A]))
        log_A = -F.cross_entropy(logits_AV, row.token_A, reduction="none")
        return log_A.new_zeros(len(row.share_C)).index_add(0, row.choice_A, log_A) / row.share_C

    def routing(self, row: AnswerRow) -> Tensor:
        """The row's own routing (R)."""
        return rerouting.routing_of(self, lambda: self(row))

    def loss(self, row: AnswerRow, routing_R: Tensor) -> Tensor:
        """Cross-entropy of the right choice among all, under a routing."""
        with rerouting.rerouted(self, routing_R):
            return F.cross_entropy(self(row), torch.tensor(row.answer))

    @torch.no_grad()
    def answer(self, row: AnswerRow, shift_R: Tensor | None = None) -> tuple[int, float]:
        """The likeliest choice, the first of equal ones, and how much of the probability the right one is given."""
        with rerouting.shifted(self, shift_R) if shift_R is not None else nullcontext():
            log_C = self(row)
        return int(log_C.argmax()), float(log_C.softmax(0)[row.answer])

    def _through(self, layers: Sequence[nn.Module], hidden_1LD: Tensor, position_L: Tensor, sees_LL: Tensor) -> Tensor:
        rotary = self.lm[0].model.model.rotary_emb(hidden_1LD, position_ids=position_L[None])
        for layer in layers:
            hidden_1LD = layer(hidden_1LD, attention_mask=sees_LL[None, None], position_embeddings=rotary)
        return hidden_1LD


@contextmanager
def continuous_gates(model: nn.Module) -> Iterator[None]:
    """Inside the block an expert with gate g is stood in for by 1 - g: for gates of 0 and 1 nothing changes."""

    def fill(experts: nn.Module, args: tuple[Tensor, Tensor], y_TD: Tensor) -> Tensor:
        weights_TE, idle_ED = args[1], experts.get_parameter("idle_ED")
        share_TE = 1 - weights_TE - (weights_TE == 0).to(weights_TE)
        filled_TD: Tensor = y_TD + share_TE @ idle_ED
        return filled_TD

    found = [module for module in model.modules() if isinstance(module, GatedFeedForwardExperts)]
    handles = [experts.register_forward_hook(fill) for experts in found]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


BASE = "as its routers say"
ORACLE = "oracle: descent on the question's own loss"
DESCENT = "gradient descent"
RANDOM_DESCENT = "control: gradient descent on random references"
UNIFORM = "control: all experts alike"
VOTE = "control: vote of the neighbours' answers"
RATES = (1e-2, 1e-1, 1.0)  # the paper's first
_GAIN = "gain, points of accuracy"
_CHANCE = "gain, nats of the right choice"
_FALLS_TO = 1e-3
_TOO_ALIKE = 0.95  # cosine: a reference that says the same as a test question is left out

Measured = dict[str, Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """What may be learned from, nothing that is like any question of `test`, of which the first `limit` are measured;
    `layers` are the last, which are re-routed."""

    test: Sequence[Question]
    pool: Sequence[Question]
    limit: int | None = None
    layers: int = 4
    k: int = 5
    tuning: int = 4
    seed: int = 0


def drawn(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions in an order that `seed` decides."""
    return [questions[index] for index in np.random.default_rng(seed).permutation(len(questions))]


class Library:
    """The pool's questions that the model answers rightly, and where they lie."""

    def __init__(self, tail: Tail, pool: Sequence[Question], places_ND: Tensor, encoder: SentenceEncoder) -> None:
        self.tail, self.encoder = tail, encoder
        rows = [tail.read(question) for question in pool]
        right = [index for index, row in enumerate(rows) if tail.answer(row)[0] == row.answer]
        if not right:
            raise ModelError("the model answers none of the reference questions rightly: give it more of them")
        self.rows = [rows[index] for index in right]
        self.places_ND = places_ND[right]
        self.routing_NR = torch.stack([tail.routing(row) for row in self.rows])
        self.answers_ND = _embed(encoder, [pool[index].choices[pool[index].answer] for index in right])

    def loss_of(self, near: Neighbours) -> LossOf:
        """L(r) of the paper."""
        rows = [self.rows[index] for index in near.index_k.tolist()]
        return lambda routing_R: near.mean(torch.stack([self.tail.loss(row, routing_R) for row in rows]))


def measure(lm: PretrainedLM, setting: Setting, work: Path, report: Report = lambda _: None) -> list[Measured]:
    """For every test question: of every arm whether it is right, the probability of the right choice, and seconds.
    `work` is a folder for what is finished. Raises ModelError for a model without experts, one that answers nothing, or
    a folder that holds another model's, pool's or test's."""
    name = f"text-{setting.layers}-{setting.k}-{len(setting.pool)}-{setting.tuning}-{setting.seed}"
    told = {"model": lm.name, "pool": fingerprint(setting.pool), "test": fingerprint(setting.test)}
    if (Path(lm.name) / CARD_FILE).is_file():  # one that is converted anew may have the same name
        told["weights"] = load_card(Path(lm.name)).sha256
    tail = Tail(lm, setting.layers)
    Study(work, told, note=name)
    with continuous_gates(lm.model), frozen(tail):
        return _measure(tail, setting, SentenceEncoder(), Log(work / f"{name}.jsonl"), report)


def _measure(tail: Tail, setting: Setting, encoder: SentenceEncoder, log: Log, report: Report) -> list[Measured]:
    test_ND = _embed(encoder, [question.context for question in setting.test])
    pool_ND = _embed(encoder, [question.context for question in setting.pool])
    fresh = ((pool_ND @ test_ND.T).amax(dim=1) < _TOO_ALIKE).nonzero().squeeze(1).tolist()
    tuning, rest = fresh[: setting.tuning], fresh[setting.tuning :]
    library = Library(tail, [setting.pool[index] for index in rest], pool_ND[rest], encoder)
    report(f"{len(library.rows)} of {len(rest)} reference questions are answered rightly")
    if len(library.rows) < setting.k:
        raise ModelError(
            f"{len(library.rows)} reference questions are answered rightly, and {setting.k} are needed: give more"
        )
    kept = log.rows()
    done = {row["asked"]: row for row in kept if "asked" in row}
    rates = next((row["rates"] for row in kept if "rates" in row), None)
    if rates is None:
        rates = _tune(library, [setting.pool[index] for index in tuning], pool_ND[tuning], setting.k)
        log.append({"rates": rates})
    report(f"chosen on tuning questions: {rates}")
    measured = setting.test[: setting.limit]
    for number, (question, place_D) in enumerate(zip(measured, test_ND, strict=False)):
        asked = _asked(question)
        if asked not in done:
            random = np.random.default_rng([setting.seed, number])
            arms = _arms(library, question, place_D, setting.k, rates, random)
            done[asked] = {"asked": asked, "question": question.context, "task": question.task, **dict(arms)}
            log.append(done[asked])
        report(f"{number + 1} of {len(measured)} questions")
    return [done[_asked(question)] | {"library": len(library.rows), "rates": rates} for question in measured]


def _asked(question: Question) -> int:
    """The same words may be asked with other choices."""
    return fingerprint((question.context, question.choices, question.answer))


def _tune(library: Library, questions: Sequence[Question], places_ND: Tensor, k: int) -> dict[str, float]:
    """For descent on neighbours and for the oracle the rate that gives the right choice most on tuning questions."""
    tail = library.tail
    totals = {DESCENT: [0.0] * len(RATES), ORACLE: [0.0] * len(RATES)}
    for question, place_D in zip(questions, places_ND, strict=True):
        row = tail.read(question)
        own_R = tail.routing(row)
        near = nearest(place_D, library.places_ND, k)
        losses: dict[str, LossOf] = {DESCENT: library.loss_of(near), ORACLE: partial(tail.loss, row)}
        for arm, loss_of in losses.items():
            for index, rate in enumerate(RATES):
                shift_R = _descend(own_R, loss_of, rate) - own_R
                totals[arm][index] += float(np.log(tail.answer(row, shift_R)[1] + 1e-9))
    return {arm: RATES[int(np.argmax(total))] for arm, total in totals.items()}


def _descend(own_R: Tensor, loss_of: LossOf, rate: float) -> Tensor:
    return rerouting.descend(own_R, loss_of, rates=(rate, rate * _FALLS_TO))


def _arms(
    library: Library,
    question: Question,
    place_D: Tensor,
    k: int,
    rates: dict[str, float],
    generator: np.random.Generator,
) -> Iterator[tuple[str, dict[str, float]]]:
    tail, start = library.tail, time.process_time()
    row = tail.read(question)
    choice, chance = tail.answer(row)
    yield BASE, {"right": choice == row.answer, "chance": chance, "seconds": time.process_time() - start}
    own_R = tail.routing(row)
    parts = rerouting.by_layer(tail, own_R).values()
    near = nearest(place_D, library.places_ND, k)
    drawn_k = torch.tensor(generator.permutation(len(library.rows))[:k])
    among = nearest(place_D, library.places_ND[drawn_k], k)
    random = Neighbours(drawn_k[among.index_k], among.kernel_k)
    ways: dict[str, Callable[[], Tensor]] = {
        "mode finding": lambda: rerouting.find_mode(own_R, library.routing_NR, k),
        "kernel regression": lambda: rerouting.regress(own_R, near, library.routing_NR, library.loss_of(near)),
        DESCENT: lambda: _descend(own_R, library.loss_of(near), rates[DESCENT]),
        ORACLE: lambda: _descend(own_R, partial(tail.loss, row), rates[ORACLE]),
        RANDOM_DESCENT: lambda: _descend(own_R, library.loss_of(random), rates[DESCENT]),
        UNIFORM: lambda: torch.cat([part_E.mean().expand_as(part_E) for part_E in parts]),
    }
    for arm, way in ways.items():
        start = time.process_time()
        shift_R = way() - own_R
        seconds = time.process_time() - start
        choice, chance = tail.answer(row, shift_R)
        yield arm, {"right": choice == row.answer, "chance": chance, "seconds": seconds}
    # Choices are free texts, so a vote on letters would say nothing: the choice is taken that is most like the answers.
    alike_C = _embed(library.encoder, question.choices) @ near.mean(library.answers_ND[near.index_k])
    yield VOTE, {"right": int(alike_C.argmax()) == row.answer, "chance": 0.0, "seconds": 0.0}


def _embed(encoder: SentenceEncoder, texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(encoder.embed(texts)).float()


def as_result(rows: Sequence[Measured], command: str, seed: int) -> Result:
    """Everything that `measure` measured, beside the paper's claim."""
    arms = [arm for arm, value in rows[0].items() if isinstance(value, dict) and "right" in value]
    tables = [Row("accuracy", arm, _accuracy(rows, arm)) for arm in arms]
    tables += [Row("against the routers' own choice", arm, _against(rows, arm)) for arm in arms if arm != BASE]
    setting = {"measured": Figure(len(rows)), "references": Figure(rows[0]["library"])}
    setting |= {f"first rate, {arm.split(':')[0]}": Figure(rate) for arm, rate in rows[0]["rates"].items()}
    tables.append(Row("setting", "questions", setting))
    result = Result(
        room="rerouting_text",
        paper="R2-T2, arXiv 2502.20395",
        claim="Descent on the neighbours' loss gains 5 to 10 points, about half of what the oracle gains.",
        verdict="",
        command=command,
        rows=tables,
        seeds=[seed],
        interval="95 %; of accuracy Wilson's over the questions, of gains Agresti and Min's over the questions, paired,"
        " and Student's of nats",
        machine=this_machine(threads=1),
    )
    return judge_text(result)


def _column(rows: Sequence[Measured], arm: str, name: str) -> FloatArray:
    return np.array([float(row[arm][name]) for row in rows])


def _accuracy(rows: Sequence[Measured], arm: str) -> dict[str, Figure]:
    figures = {"right, %": wilson(_column(rows, arm, "right").sum(), len(rows)).percent()}
    if arm != VOTE:
        figures["CPU seconds" if arm == BASE else "CPU seconds more"] = students_mean(_column(rows, arm, "seconds"))
    return figures


def _against(rows: Sequence[Measured], arm: str) -> dict[str, Figure]:
    figures = {_GAIN: paired_shares(_column(rows, arm, "right"), _column(rows, BASE, "right"))}
    if arm != VOTE:
        log_N, base_N = (np.log(_column(rows, one, "chance") + 1e-9) for one in (arm, BASE))
        figures[_CHANCE] = students_mean(log_N - base_N)
    return figures
