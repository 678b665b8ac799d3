"""What a classifier learns from: a task's texts, once run through the layers below the lowest bank and kept.

Axis names: N texts, B texts of a batch, T tokens, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mofme.errors import Cancelled
from mofme.language.llm_routing.table import IntArray
from mofme.language.lora_mixture.encoder import Encoder, read_tokens
from mofme.language.lora_mixture.tasks import Examples, Task

_BATCH = 64


@dataclass(frozen=True)
class Passages:
    """Texts as hidden states, all tokens of one after those of the other; `label_N` counts classes from 0."""

    x_TD: Tensor
    length_N: IntArray
    label_N: IntArray

    def __len__(self) -> int:
        return len(self.length_N)

    def batch(self, index_B: IntArray) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states (B, T, D), padded to the longest; which are tokens (B, T); classes (B,)."""
        stop_N = self.length_N.cumsum()
        parts = [self.x_TD[stop_N[i] - self.length_N[i] : stop_N[i]] for i in index_B]
        x_BTD = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        length_B = torch.from_numpy(self.length_N[index_B])
        return x_BTD, torch.arange(x_BTD.shape[1]) < length_B[:, None], torch.from_numpy(self.label_N[index_B])


@dataclass(frozen=True)
class Lessons:
    """A task made ready for classifiers whose lowest bank is in layer `first`."""

    task: Task
    first: int
    training: Passages
    validation: Passages
    test: Passages


def prepare(
    task: Task,
    first: int,
    report: Callable[[int, int], None] = lambda done, total: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Lessons:
    """Run a task's texts through the layers below `first`. Raises Cancelled once `stopped` says so."""
    encoder = Encoder.pretrained()
    parts = (task.training, task.validation, task.test)
    total = sum(len(part.texts) for part in parts)
    done = 0
    passages = []
    for part in parts:
        passages.append(_passages(encoder, part, first, lambda n, done=done: report(done + n, total), stopped))
        done += len(part.texts)
    return Lessons(task, first, *passages)


@torch.no_grad()
def _passages(
    encoder: Encoder, examples: Examples, first: int, report: Callable[[int], None], stopped: Callable[[], bool]
) -> Passages:
    ids = [read_tokens(text)[0] for text in examples.texts]
    length_N = np.array([len(row) for row in ids], np.int64)
    hidden: list[Tensor] = [torch.empty(0)] * len(ids)
    by_length: Sequence[int] = np.argsort(length_N, kind="stable").tolist()  # a batch is as long as its longest
    for start in range(0, len(ids), _BATCH):
        if stopped():
            raise Cancelled("stopped while the texts were being read")
        report(start)
        index = by_length[start : start + _BATCH]
        x_BTD, seen_BT = encoder.embed([ids[i] for i in index])
        x_BTD = encoder.run(x_BTD, seen_BT, stop=first)
        for i, x_TD in zip(index, x_BTD, strict=True):
            hidden[i] = x_TD[: length_N[i]].clone()
    return Passages(torch.cat(hidden), length_N, examples.label_N)
