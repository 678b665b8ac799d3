"""Prompts as points: what every router here sees of them."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mofme.files import cache_root
from mofme.language.llm_routing.embedding_cache import EmbeddingCache
from mofme.language.llm_routing.minilm import DIM, MiniLM, fastest_precision
from mofme.language.llm_routing.prompt_router import Queries
from mofme.language.llm_routing.question import question_of
from mofme.language.llm_routing.table import FloatArray

_BATCH = 32
_KEPT_AT_ONCE = 512  # what a killed run has embedded until then is not lost


class SentenceEncoder:
    """Embeds the question in each prompt by MiniLM, without any network.

    Embeddings are kept in `cache`, a folder: by default MOFME_CACHE or ~/.cache/mofme. With `remember=False` nothing is
    read or written, as suits live prompts. Raises ModelError, when first needed, if the encoder is not installed.
    """

    def __init__(self, cache: Path | None = None, remember: bool = True) -> None:
        self._cache: EmbeddingCache | None = None
        if remember:
            path = (cache or cache_root()) / "embeddings.sqlite"
            self._cache = EmbeddingCache(path, f"minilm-l6-v2 {fastest_precision()} 1")

    @cached_property
    def net(self) -> MiniLM:
        return MiniLM()

    def embed(self, prompts: Sequence[str], report: Callable[[int, int], None] | None = None) -> FloatArray:
        """Embeddings (N, 384), rows of length 1; `report` is told how many of how many are done."""
        questions = [question_of(prompt) for prompt in prompts]
        known = self._cache.get(questions) if self._cache else {}
        missing = list(dict.fromkeys(question for question in questions if question not in known))
        missing.sort(key=len)  # a batch is as long as its longest
        for start in range(0, len(missing), _KEPT_AT_ONCE):
            if report:
                report(len(prompts) - len(missing) + start, len(prompts))
            new = self._embed_questions(missing[start : start + _KEPT_AT_ONCE])
            if self._cache:
                self._cache.put(new)
            known.update(new)
        if report:
            report(len(prompts), len(prompts))
        rows = [known[question] for question in questions]
        return np.array(rows, np.float64).reshape(len(questions), DIM)

    def queries(self, prompts: Sequence[str]) -> Queries:
        """The prompts with their embeddings, as routers take them."""
        return Queries(prompts, self.embed(prompts))

    def _embed_questions(self, questions: list[str]) -> dict[str, NDArray[np.float32]]:
        embedded: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(questions), _BATCH):
            batch = questions[start : start + _BATCH]
            vectors = self.net.embed_tokens([self.net.tokens(question) for question in batch])
            embedded.update(zip(batch, vectors.numpy(), strict=True))
        return embedded
