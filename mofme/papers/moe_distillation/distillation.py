"""Six ways by which a mixture of experts teaches a smaller model, on equal terms (arXiv 2502.12947, section 3).

What a mixture teaches when other experts than those its routers chose take part, how much of it these hold, and where
teachers and students come from: the shipped pair, folders, and students cut out of deeper models.

Axis names: B texts, T tokens, V vocabulary, E experts, n of them that are drawn, L layers.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mofme.core.losses import gkd_loss, kd_loss, router_feedback_loss
from mofme.core.moe import MoE, moe_layers, observe_routing, replace_routing
from mofme.core.routing import RoutingDecision
from mofme.core.training import Run, StepReport, linear
from mofme.core.weights import as_stored, check_replaceable, load_card
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS, atomic_file
from mofme.language.pretrained import CausalLM, PretrainedCausalLM, SmallCausalLM, decoder_layers
from mofme.language.small_lm import NET, load_lm, save_lm
from mofme.papers.ladimo.conversion import open_model
from mofme.papers.moe_distillation import Method
from mofme.papers.moe_distillation.quality import Passages, Quality, held_out_kl, measure, response_logits

_LOOKS = 10  # at the held-out KL, on the way
_LOOKED_AT = 32  # passages
_ROUTER_RATE = 0.1


@dataclass(frozen=True)
class Plan:
    """How to distil: `steps` batches, drawn by `seed`. KA averages over `draws` teachers, M in the paper, whose tokens
    draw their experts with probability `chance`, lambda in the paper. Then `samplings` continuations are measured.
    """

    method: Method
    steps: int = 100
    seed: int = 0
    batch: int = 16
    learning_rate: float = 3e-4
    draws: int = 2
    chance: float = 0.05
    samplings: int = 5


@dataclass(frozen=True)
class Progress(StepReport):
    """About every tenth of the way with KL(student || teacher) on passages held out."""

    held_out_kl: float | None = None


@dataclass(frozen=True)
class Distilled:
    """What came of it: the loss of every step, the held-out KL on the way by step (0: before), and the quality."""

    losses: tuple[float, ...]
    held_out_kl: tuple[tuple[int, float], ...]
    quality: Quality


def distil(
    teacher: CausalLM,
    student: CausalLM,
    prompts: Passages,
    plan: Plan,
    report: Callable[[Progress], None] = lambda _: None,
) -> Distilled:
    """Train the student in place; the teacher is left as it was.

    Raises ModelError if the two do not share a vocabulary, or the teacher has no experts that the method could choose
    from; what `report` raises stops it.
    """
    training = _Training(teacher, student, prompts, plan)
    optimizer = torch.optim.AdamW(student.module.parameters(), lr=plan.learning_rate)
    run = Run(student.module, optimizer, steps=plan.steps, schedule=linear, clip=1.0)
    losses: list[float] = []
    looks = [(0, training.held_out())]
    try:
        for _ in run:
            losses.append(run.learn(training.loss(run.share)))
            kl = training.held_out() if run.due(max(1, plan.steps // _LOOKS)) else None
            if kl is not None:
                looks.append((run.steps, kl))
            report(Progress(run.steps, plan.steps, losses[-1], kl))
    finally:
        _restore(training.routers, training.as_they_were)
        teacher.module.requires_grad_(False)
        student.module.requires_grad_(False)
    return Distilled(tuple(losses), tuple(looks), measure(student, teacher, prompts, plan.samplings))


class _Training:
    """One run: the models, what optimizes them, and where chance stands."""

    def __init__(self, teacher: CausalLM, student: CausalLM, passages: Passages, plan: Plan) -> None:
        self.teacher, self.student, self.passages, self.plan = teacher, student, passages, plan
        # Of a token that every model has; where there are as many, they have to be the same ones.
        widths = [model.logits(torch.zeros(1, 1, dtype=torch.long)).shape[-1] for model in (teacher, student)]
        words = teacher.decode(passages.held_out_PT[0].tolist())
        if widths[0] != widths[1] or teacher.encode(words) != student.encode(words):
            raise ModelError(
                f"teacher and student must share a vocabulary, they have {widths[0]} and {widths[1]} tokens"
                + (", other ones" if widths[0] == widths[1] else "")
            )
        teacher.module.eval().requires_grad_(False)
        student.module.eval().requires_grad_(True)
        # One for each, so that all methods meet the same prompts in the same order.
        self.prompts, self.writing, self.drawing = (
            torch.Generator().manual_seed(3 * plan.seed + number) for number in range(3)
        )
        self.routers = router_parameters(teacher) if plan.method == "sar" else []
        self.as_they_were = [parameter.clone() for parameter in self.routers]
        if self.routers:
            self.routers_optimizer = torch.optim.AdamW(parameter.requires_grad_() for parameter in self.routers)

    def loss(self, rate: float) -> Tensor:
        """The student's loss on a batch, before which routers that learn do so, at `rate` of their learning rate."""
        ids_BT = self._batch()
        student_TV = self._response(self.student, ids_BT)
        if self.routers:
            self.routers_optimizer.param_groups[0]["lr"] = rate * (_ROUTER_RATE * self.plan.learning_rate)
            self._teach_routers(ids_BT, student_TV.detach())
        return self._loss(ids_BT, student_TV)

    def held_out(self) -> float:
        """The student's distance from the teacher that was shipped, even while SAR changes it."""
        changed = [parameter.clone() for parameter in self.routers]
        _restore(self.routers, self.as_they_were)
        looked_at_PT = self.passages.held_out_PT[:: -(-len(self.passages.held_out_PT) // _LOOKED_AT)]
        kl = float(held_out_kl(self.student, self.teacher, looked_at_PT, self.passages.prompt).mean())
        _restore(self.routers, changed)
        return kl

    def _batch(self) -> Tensor:
        learned_PT = self.passages.learned_PT
        index_B = torch.randint(len(learned_PT), (self.plan.batch,), generator=self.prompts)
        if self.plan.method == "kd":
            return learned_PT[index_B]
        prompt_BT = learned_PT[index_B, : self.passages.prompt]
        written_BT = self.student.write(prompt_BT, self.passages.response, self.writing)
        return torch.cat([prompt_BT, written_BT], dim=1)

    def _response(self, model: CausalLM, ids_BT: Tensor) -> Tensor:
        return response_logits(model, ids_BT, self.passages.prompt).flatten(0, 1)

    def _loss(self, ids_BT: Tensor, student_TV: Tensor) -> Tensor:
        match self.plan.method:
            case "kd":
                labels_T = ids_BT[:, self.passages.prompt :].flatten()
                return kd_loss(student_TV, self._taught(ids_BT), labels_T)
            case "gkd":
                return gkd_loss(student_TV, self._taught(ids_BT))
            case "all" | "sar":
                return gkd_loss(student_TV, self._taught(ids_BT, spared=0))
            case "top-(n-1)":
                return gkd_loss(student_TV, self._taught(ids_BT, spared=1))
            case "ka":
                draws = [self._taught(ids_BT, spared=1, chance=self.plan.chance) for _ in range(self.plan.draws)]
                return gkd_loss(student_TV, *draws)

    @torch.no_grad()
    def _taught(self, ids_BT: Tensor, spared: int | None = None, chance: float = 0.0) -> Tensor:
        if spared is None:
            return self._response(self.teacher, ids_BT)
        with most_experts(self.teacher, spared, chance, self.drawing):
            return self._response(self.teacher, ids_BT)

    def _teach_routers(self, ids_BT: Tensor, student_TV: Tensor) -> None:
        with most_experts(self.teacher, spared=0), observe_routing(self.teacher.module) as observed:
            teacher_TV = self._response(self.teacher, ids_BT)
        loss = router_feedback_loss(teacher_TV, student_TV, [one.decision for one in observed])
        self.routers_optimizer.zero_grad()
        loss.backward()
        self.routers_optimizer.step()


@torch.no_grad()
def _restore(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def mixtures(teacher: CausalLM) -> list[MoE]:
    """Its mixture layers. Raises ModelError if there are none: such a teacher has no experts to choose from."""
    found = list(moe_layers(teacher.module).values())
    if not found:
        raise ModelError("the teacher has no mixture of experts: choose the method kd or gkd, or another teacher")
    return found


@contextmanager
def most_experts(
    teacher: CausalLM, spared: int, chance: float = 0.0, generator: torch.Generator | None = None
) -> Iterator[None]:
    """Inside the block every layer of the teacher uses all its experts but `spared`, the best for each token.

    With probability `chance`, for each layer and token on its own, they are drawn from the router's softmax instead.
    """

    def choose(_: str, decision: RoutingDecision) -> RoutingDecision:
        count = max(1, decision.logits_TE.shape[-1] - spared)
        drawn = sample_experts(decision, count, chance, generator)
        return replace(drawn, weights_TE=drawn.weights_TE * count) if teacher.unit_gates else drawn

    mixtures(teacher)
    with replace_routing(teacher.module, choose):
        yield


def sample_experts(
    decision: RoutingDecision, count: int, chance: float, generator: torch.Generator | None = None
) -> RoutingDecision:
    """`count` experts for every token, weighed by a softmax over their logits: knowledge augmentation.

    With probability `chance`, for each token on its own, they are drawn without replacement from softmax(logits);
    else they are the `count` best. With chance 0 this is top-n routing, and with `count` = E all experts take part.
    Raises ValueError for a count outside 1 to E.
    """
    logits_TE = decision.logits_TE
    num_experts = logits_TE.shape[-1]
    if not 1 <= count <= num_experts:
        raise ValueError(f"between 1 and {num_experts} experts can be drawn, not {count}")
    # The largest of logits + Gumbel noise are a draw without replacement from their softmax (Kool et al. 2019).
    drawn_T1 = torch.rand(len(logits_TE), 1, device=logits_TE.device, generator=generator) < chance
    noise_TE = torch.empty_like(logits_TE).exponential_(generator=generator).log().neg()
    chosen_Tn = torch.where(drawn_T1, logits_TE + noise_TE, logits_TE).topk(count, dim=-1).indices
    weights_Tn = logits_TE.gather(-1, chosen_Tn).softmax(-1)
    return replace(decision, weights_TE=torch.zeros_like(logits_TE).scatter(-1, chosen_Tn, weights_Tn))


def router_parameters(teacher: CausalLM) -> list[nn.Parameter]:
    """What its routers can learn. Raises ModelError if that is nothing."""
    found = [parameter for moe in mixtures(teacher) for parameter in moe.router.parameters()]
    if not found:
        raise ModelError("the teacher's routers have nothing to learn: choose another method than sar")
    return found


@torch.no_grad()
def non_activated_mass(teacher: CausalLM, ids_BT: Tensor) -> Tensor:
    """For each mixture layer (L), the share of the router's softmax that falls on experts which take no part."""
    mixtures(teacher)
    with observe_routing(teacher.module) as observed:
        teacher.logits(ids_BT)
    decisions = [one.decision for one in observed]
    return torch.stack([(one.probabilities_TE * ~one.chosen_TE).sum(-1).mean() for one in decisions])


_NOTES = "distillation.json"


def shipped_teacher() -> SmallCausalLM:
    """A mixture of eight experts a layer, of which a token visits two. Raises ModelError if it is missing."""
    return SmallCausalLM(*load_lm(WEIGHTS / "distillation-teacher"))


def fresh_student() -> SmallCausalLM:
    """The smaller dense student as it was before any distillation, a new one each time."""
    return SmallCausalLM(*load_lm(WEIGHTS / "distillation-student"))


def open_lm(name: str) -> CausalLM:
    """A folder that `save_lm`, `save_converted` or transformers wrote, `smollm2`, or a hub's name.

    Raises ModelError for anything else.
    """
    folder = Path(name)
    if (folder / CARD_FILE).is_file() and load_card(folder).net == NET:
        return SmallCausalLM(*load_lm(folder))
    return PretrainedCausalLM(open_model(name))


def open_student(name: str, layers: int | None = None) -> CausalLM:
    """What `open_lm` opens, cut to `layers` layers. Raises ModelError if it is a mixture, or cannot be cut so."""
    model = open_lm(name)
    if isinstance(model, PretrainedCausalLM) and moe_layers(model.module):
        raise ModelError(f"{name} is a converted model, which teaches: give a dense one as the student")
    if layers is not None:
        keep_layers(model, layers)
    return model


def keep_layers(model: CausalLM, count: int) -> None:
    """Keep `count` layers of a model of transformers, evenly spread, with the first and the last, as DistilBERT began.

    Raises ModelError for another kind of model, or if it has no more layers than that.
    """
    if not isinstance(model, PretrainedCausalLM):
        raise ModelError("only models of transformers can be cut to fewer layers")
    net = model.lm.model
    layers = decoder_layers(net)
    if not 1 <= count < len(layers):
        raise ModelError(f"the student has {len(layers)} layers: between 1 and {len(layers) - 1} can be kept")
    kept = [layers[index * (len(layers) - 1) // max(1, count - 1)] for index in range(count)]
    for number, layer in enumerate(kept):
        cast(Any, layer.self_attn).layer_idx = number  # where the cache keeps its keys and values
    net.model.layers = nn.ModuleList(kept)  # type: ignore[arg-type]
    net.config.num_hidden_layers = count
    if getattr(net.config, "layer_types", None):
        net.config.layer_types = net.config.layer_types[:count]


def check_student_folder(student: CausalLM, folder: Path) -> None:
    """Raises ModelError if `folder` holds a model that writing the student there would destroy."""
    check_replaceable(folder, NET if isinstance(student, SmallCausalLM) else "a model of transformers")


def save_student(
    student: CausalLM, folder: Path, licence: str, training: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Write it as `open_lm` reads it, in half precision; a model of transformers as transformers does it."""
    if isinstance(student, SmallCausalLM):
        save_lm(folder, student.model, student.vocabulary, licence, training, metrics)
    elif isinstance(student, PretrainedCausalLM):
        model = student.lm.model
        fits = all(tensor.dtype != torch.float32 for tensor in as_stored(model.state_dict()).values())
        (model.half() if fits else model).save_pretrained(folder)
        student.lm.tokenizer.save_pretrained(folder)
        notes = {"licence": licence, "training": training, "metrics": metrics}
        with atomic_file(folder / _NOTES, "w") as file:
            file.write(json.dumps(notes, indent=2) + "\n")
