"""What a classifier learns from: a task's texts, once run through the blocks below the lowest bank and kept.

Axis names: N texts, B texts of a batch, T tokens, D features, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.errors import Cancelled
from mofme.language.llm_routing.table import IntArray
from mofme.language.lora_mixture.classifier import WINDOW, features
from mofme.language.lora_mixture.tasks import Examples, Task
from mofme.language.minilm import MiniLM, read_tokens

_AT_ONCE = 64
_SMALL_WEIGHTS = 0.1


@dataclass(frozen=True)
class Passages:
    """Texts as hidden states, all tokens of one after those of the other; `label_N` counts classes from 0.

    `features_ND` is what a head sees without any bank.
    """

    x_TD: Tensor
    length_N: IntArray
    label_N: IntArray
    features_ND: Tensor

    def __len__(self) -> int:
        return len(self.length_N)

    def batch(self, index_B: IntArray) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (B, T, D), padded to the longest; which are tokens (B, T); classes (B,)."""
        stop_N = self.length_N.cumsum()
        parts = [self.x_TD[stop_N[i] - self.length_N[i] : stop_N[i]] for i in index_B]
        x_BTD = nn.utils.rnn.pad_sequence(parts, batch_first=True)
        length_B = torch.from_numpy(self.length_N[index_B])
        return x_BTD, torch.arange(x_BTD.shape[1]) < length_B[:, None], torch.from_numpy(self.label_N[index_B])


@dataclass(frozen=True)
class Lessons:
    """A task made ready for classifiers whose lowest bank is in block `first`, and the head that all begin with.

    That head is the best one for the encoder without banks, so that what is learned later is what the banks add.
    """

    task: Task
    first: int
    training: Passages
    validation: Passages
    test: Passages
    head: nn.Linear

    def right_without_banks(self, passages: Passages) -> IntArray:
        """1 for each text (N,) that the encoder with this head classifies correctly, else 0."""
        right_N: IntArray = (self.head(passages.features_ND).argmax(-1).numpy() == passages.label_N).astype(np.int64)
        return right_N


def prepare(
    task: Task,
    first: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Lessons:
    """Run a task's texts through the blocks below `first` and fit the head. Raises Cancelled once `stopped` says so."""
    encoder = MiniLM.pretrained()
    parts = (task.training, task.validation, task.test)
    total = sum(len(part.texts) for part in parts)
    passages: list[Passages] = []
    for part in parts:
        before = sum(map(len, passages))
        passages.append(_passages(encoder, part, first, lambda done: report(before + done, total), stopped))  # noqa: B023
    training, validation, test = passages
    return Lessons(
        task, first, training, validation, test, fit_head(training.features_ND, training.label_N, len(task.labels))
    )


def fit_head(features_ND: Tensor, label_N: IntArray, classes: int) -> nn.Linear:
    """Logistic regression: the linear layer of the least cross-entropy, with a small penalty on large weights."""
    labels_N = torch.from_numpy(label_N)
    head = nn.Linear(features_ND.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(head(features_ND), labels_N) + _SMALL_WEIGHTS / 2 * head.weight.square().sum()
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    return head.requires_grad_(False)


@torch.no_grad()
def _passages(
    encoder: MiniLM, examples: Examples, first: int, report: Callable[[int], None], stopped: Callable[[], bool]
) -> Passages:
    ids = [read_tokens(text, WINDOW)[0] for text in examples.texts]
    length_N = np.array([len(row) for row in ids], np.int64)
    hidden = [torch.empty(0)] * len(ids)
    seen_first = [torch.empty(0)] * len(ids)
    by_length: Sequence[int] = np.argsort(length_N, kind="stable").tolist()  # a batch is as long as its longest
    for start in range(0, len(ids), _AT_ONCE):
        if stopped():
            raise Cancelled("stopped while the texts were being read")
        report(start)
        index = by_length[start : start + _AT_ONCE]
        x_BTD, seen_BT = encoder.embed([ids[i] for i in index])
        x_BTD = encoder.run(x_BTD, seen_BT, stop=first)
        features_BD = features(encoder.run(x_BTD, seen_BT, first), seen_BT)
        for i, x_TD, features_D in zip(index, x_BTD, features_BD, strict=True):
            hidden[i], seen_first[i] = x_TD[: length_N[i]].clone(), features_D
    return Passages(torch.cat(hidden), length_N, examples.label_N, torch.stack(seen_first))
