"""Training a classifier's banks and head on a prepared task, and measuring it.

Axis names: N texts, C classes, T tokens, E experts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mofme.core.losses import squared_coefficient_of_variation, switch_loss
from mofme.core.moe import ObservedRouting, observe_routing
from mofme.core.routing import RoutingDecision
from mofme.core.training import Run, linear
from mofme.language.llm_routing.table import IntArray
from mofme.language.lora_mixture.bank import Recipe
from mofme.language.lora_mixture.classifier import Classifier
from mofme.language.lora_mixture.lessons import Lessons, Passages
from mofme.language.minilm import MiniLM

_BALANCE = 0.01  # Switch Transformer's weight of its loss of balance
_MEASURED_AT_ONCE = 64


@dataclass(frozen=True)
class Plan:
    """One training run. The same lessons, steps, batch, learning rate and seed give every recipe the same batches,
    the same beginning of head and experts, and the same dropout: only the routers differ.
    """

    lessons: Lessons
    recipe: Recipe
    steps: int = 200
    batch: int = 16
    learning_rate: float = 3e-4
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """After `step` of `steps`: this batch's cross-entropy, and the share of it that was classified correctly."""

    step: int
    steps: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Measured:
    """`right_N`: which texts were classified correctly. `load`: the coefficient of variation of the number of tokens
    that choose each expert, mean over the banks; 0 means that all are used equally.
    """

    right_N: NDArray[np.bool_]
    load: float

    @property
    def accuracy(self) -> float:
        return float(self.right_N.mean())


def train(
    plan: Plan,
    report: Callable[[Progress], None] = lambda progress: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Classifier:
    """Train the banks, and the head that the lessons begin with; the last step's are taken.

    Raises Cancelled once `stopped` says so.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        classifier = Classifier(MiniLM.pretrained(), plan.recipe, len(plan.lessons.task.labels)).train()
        _check_first(classifier, plan.lessons)
        classifier.head.load_state_dict(plan.lessons.head.state_dict())
        learning = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=plan.learning_rate)
        run = Run(classifier, optimizer, steps=plan.steps, schedule=linear, stopped=stopped)
        batches = _batches(len(plan.lessons.training), plan)
        for _ in run:
            x_BTD, seen_BT, label_B = plan.lessons.training.batch(next(batches))
            with observe_routing(classifier) as observed:
                scores_BC = classifier(x_BTD, seen_BT)
            loss = F.cross_entropy(scores_BC, label_B)
            balance = torch.stack([switch_loss(_of_tokens(one, seen_BT)) for one in observed]).mean()
            run.learn(loss + _BALANCE * balance)
            right = float((scores_BC.argmax(-1) == label_B).double().mean())
            report(Progress(run.steps, plan.steps, float(loss.detach()), right))
    return classifier.eval()


@torch.no_grad()
def measure(classifier: Classifier, passages: Passages) -> Measured:
    """How well a classifier does on one part of a task, and how evenly it uses its experts there."""
    right_N = np.zeros(len(passages), bool)
    loads: dict[str, Tensor] = {}
    by_length = np.argsort(passages.length_N, kind="stable")
    for start in range(0, len(passages), _MEASURED_AT_ONCE):
        index_B = by_length[start : start + _MEASURED_AT_ONCE]
        x_BTD, seen_BT, label_B = passages.batch(index_B)
        with observe_routing(classifier) as observed:
            right_N[index_B] = (classifier(x_BTD, seen_BT).argmax(-1) == label_B).numpy()
        for one in observed:
            chosen_E = _of_tokens(one, seen_BT).chosen_TE.double().sum(0)
            loads[one.layer] = loads.get(one.layer, torch.zeros_like(chosen_E)) + chosen_E
    cv = [float(squared_coefficient_of_variation(load_E).sqrt()) for load_E in loads.values()]
    return Measured(right_N, float(np.mean(cv)))


def trained_parameters(classifier: Classifier) -> int:
    """Of all banks and the head."""
    return sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)


def _check_first(classifier: Classifier, lessons: Lessons) -> None:
    if classifier.first != lessons.first:
        raise ValueError(f"the lessons are for banks from block {lessons.first}, the lowest is in {classifier.first}")


def _batches(count: int, plan: Plan) -> Iterator[IntArray]:
    """All texts in an order drawn anew for every pass, `batch` at a time, without end."""
    generator = np.random.default_rng(plan.seed)
    order = np.empty(0, np.int64)
    while True:
        while len(order) < plan.batch:
            order = np.concatenate([order, generator.permutation(count)])
        yield order[: plan.batch]
        order = order[plan.batch :]


def _of_tokens(one: ObservedRouting, seen_BT: Tensor) -> RoutingDecision:
    """Without what was decided for padding."""
    seen_T = seen_BT.flatten()
    return RoutingDecision(one.decision.weights_TE[seen_T], one.decision.logits_TE[seen_T])
