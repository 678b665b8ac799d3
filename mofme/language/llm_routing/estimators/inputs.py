"""What estimators see of prompts: embeddings, and traits that embeddings do not tell, such as the length."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mofme.language.llm_routing.table import FloatArray, IntArray
from mofme.language.sentence_encoder import Queries, question_of

TRAITS = 8
_SYMBOLS = re.compile(r"[\\$=^{}]")
# An embedding of length 1 has numbers of about this size; traits have as much weight as they.
_SIZE = 0.05
_LENGTH = 4  # characters, about a token; large beside the rest, so that a penalty leaves its weight alone


@dataclass(frozen=True)
class Inputs:
    """N prompts: embeddings (N, D) of length 1, traits (N, 8), characters, and while learning the task of each."""

    embeddings_ND: FloatArray
    traits_NF: FloatArray
    length_N: FloatArray
    tasks: tuple[str, ...] = ()

    @classmethod
    def of(cls, queries: Queries, tasks: tuple[str, ...] = ()) -> "Inputs":
        traits = np.array([_traits(prompt) for prompt in queries.prompts]).reshape(len(queries), TRAITS)
        length_N = np.array([len(prompt) for prompt in queries.prompts], np.float64)
        return cls(queries.embeddings_ND, traits, length_N, tasks)

    def __len__(self) -> int:
        return len(self.embeddings_ND)

    @cached_property
    def all_NF(self) -> FloatArray:
        """Embeddings and traits side by side."""
        return np.hstack([self.embeddings_ND, self.traits_NF])

    @cached_property
    def with_length_NF(self) -> FloatArray:
        """The same, and the length that a prompt is paid by: not bounded, so for costs only."""
        return np.hstack([self.all_NF, self.length_N[:, None] / _LENGTH])

    def rows(self, index: Sequence[int] | IntArray) -> "Inputs":
        tasks = tuple(self.tasks[i] for i in index) if self.tasks else ()
        return Inputs(self.embeddings_ND[index], self.traits_NF[index], self.length_N[index], tasks)


def _traits(prompt: str) -> list[float]:
    """About 0 for most prompts, of the size of an embedding's numbers."""
    question = question_of(prompt)
    length, words = len(question), question.split()
    traits = [
        np.log1p(length) - 5,
        np.log1p(len(words)) - 3.5,
        10 * sum(map(str.isdigit, question)) / max(length, 1) - 0.3,
        np.log1p(question.count("\n")) - 0.7,
        np.log1p(len(_SYMBOLS.findall(question))) - 0.4,
        10 * sum(map(str.isupper, question)) / max(length, 1) - 0.3,
        sum(map(len, words)) / max(len(words), 1) / 5 - 1,
        min(question.count("?"), 3) - 0.8,
    ]
    return [_SIZE * trait for trait in traits]
