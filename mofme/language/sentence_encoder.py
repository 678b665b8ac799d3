"""Prompts as points: what every router of prompts sees of them, which of them are nearly the same, and splits that
never put two of these on different sides: a router that has learnt from a near-duplicate is asked what it knows.

Axis names: N prompts, D numbers of an embedding.
"""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mofme.errors import TableError
from mofme.files import cache_root
from mofme.language.minilm import DIM, MiniLM, fastest_precision, read_tokens

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
VectorArray = NDArray[np.float32]

WINDOW = 256  # tokens; the encoder's own limit
_BATCH = 32
_KEPT_AT_ONCE = 512  # what a killed run has embedded until then is not lost

_CUE = r"\b(answer|a|output|response|solution|label)[ \t]*:"
_OPEN_ANSWER = re.compile(_CUE + r"\Z", re.IGNORECASE)
_FILLED_ANSWER = re.compile(_CUE + r"[ \t]*(?:\n[ \t]*)?[^\s][^\n]{0,300}\n[ \t]*\n", re.IGNORECASE)
_EXAMPLES = 2  # one alone may be part of the question
_LONGEST = 4000

_SCHEMA = "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT"
_FORGET = "DELETE FROM embeddings WHERE rowid <= (SELECT max(rowid) FROM embeddings) - ?"
_VARIABLES = 500  # sqlite's limit of them in one statement was 999 for long


@dataclass(frozen=True)
class Queries:
    """N prompts and their embeddings (N, D), rows of length 1."""

    prompts: Sequence[str]
    embeddings_ND: FloatArray

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, index: Sequence[int] | IntArray) -> "Queries":
        return Queries([self.prompts[i] for i in index], self.embeddings_ND[index])


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
        with torch.random.fork_rng(devices=[]):  # whoever draws numbers meanwhile draws the same ones
            net = MiniLM.pretrained()
        net.blocks.to(fastest_precision())
        return net

    def embed(self, prompts: Sequence[str]) -> FloatArray:
        """Embeddings (N, 384), rows of length 1. Raises TypeError for what is no sequence of texts."""
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise TypeError("prompts are texts in a list, and a prompt is a text")
        questions = [question_of(prompt) for prompt in prompts]
        known = self._cache.get(questions) if self._cache else {}
        missing = list(dict.fromkeys(question for question in questions if question not in known))
        missing.sort(key=len)  # a batch is as long as its longest
        for start in range(0, len(missing), _KEPT_AT_ONCE):
            new: dict[str, VectorArray] = {}
            for first in range(start, min(start + _KEPT_AT_ONCE, len(missing)), _BATCH):
                batch = missing[first : first + _BATCH]
                ids = [read_tokens(question, WINDOW, last=WINDOW // 2)[0] for question in batch]
                new.update(zip(batch, self.net.sentence_embeddings(ids).numpy(), strict=True))
            if self._cache:
                self._cache.put(new)
            known.update(new)
        return np.array([known[question] for question in questions], np.float64).reshape(len(questions), DIM)

    def queries(self, prompts: Sequence[str]) -> Queries:
        """The prompts with their embeddings, as routers take them."""
        return Queries(prompts, self.embed(prompts))


def question_of(prompt: str) -> str:
    """What of a prompt is worth embedding: the question itself, not the worked examples in front of it.

    The encoder reads 256 tokens; RouterBench's prompts open with the same worked examples, longer than that, and would
    all be one point. So of a few-shot prompt, which ends with "Answer:" or the like left open after two that were
    filled in, this is the last question; of any other the prompt as it is, and of very long ones the start and the end.
    """
    question = prompt.strip()
    if cue := _OPEN_ANSWER.search(question):
        filled = [found for found in _FILLED_ANSWER.finditer(question) if found[1].lower() == cue[1].lower()]
        if len(filled) >= _EXAMPLES:
            question = question[filled[-1].end() :].strip()
    if len(question) > _LONGEST:
        question = f"{question[: _LONGEST // 2]}\n{question[-_LONGEST // 2 :]}"
    return question


class EmbeddingCache:
    """Float32 vectors by version and text in one SQLite file; several processes may use it at once.

    Of a text a checksum is kept only. Nothing fails because of it: what cannot be read is computed again, a damaged
    file is begun anew, and where nothing can be written nothing is. At most `limit` vectors stay, the youngest.
    """

    def __init__(self, path: Path, version: str, limit: int = 200_000) -> None:
        self.path, self.version, self.limit = path, version, limit

    def get(self, texts: Sequence[str]) -> dict[str, VectorArray]:
        """The vectors of those texts that are known."""
        texts_by_key = {self._key(text): text for text in texts}
        keys = list(texts_by_key)
        found: dict[str, VectorArray] = {}

        def read(database: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _VARIABLES):
                group = keys[start : start + _VARIABLES]
                marks = ",".join("?" * len(group))
                rows = database.execute(f"SELECT key, vector FROM embeddings WHERE key IN ({marks})", group)
                found.update((texts_by_key[key], np.frombuffer(vector, np.float32)) for key, vector in rows)

        self._try(read)
        return found

    def put(self, vectors: Mapping[str, VectorArray]) -> None:
        """Keep these vectors, all or none of them."""
        rows = [(self._key(text), vector.astype(np.float32).tobytes()) for text, vector in vectors.items()]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
                database.execute(_FORGET, (self.limit,))

        self._try(write)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.version}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def _try(self, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as database:
                database.execute(_SCHEMA)
                work(database)
        except (sqlite3.OperationalError, OSError):  # locked for long, a full disk, a folder that may not be written
            return
        except sqlite3.DatabaseError:  # damaged
            self.path.unlink(missing_ok=True)


_BLOCK = 256  # rows compared at once: 12,000 prompts need 25 MB


def near_duplicates(embeddings_ND: FloatArray, threshold: float = 0.95) -> IntArray:
    """Groups (N,), counted from 0, of the prompts whose embeddings (N, D), of length 1, have this cosine or more.

    Near-duplicates of near-duplicates are in one group. Time grows with N squared, memory with N.
    """
    count = len(embeddings_ND)
    vectors_ND = embeddings_ND.astype(np.float32)
    group_N = np.arange(count)
    for start in range(0, count, _BLOCK):
        cosines = vectors_ND[start : start + _BLOCK] @ vectors_ND[start:].T
        left, right = np.nonzero(cosines >= threshold)
        group_N = _joined(group_N, left + start, right + start)
    return group_N


def groups_of(queries: Queries) -> IntArray:
    """Groups (N,) of the prompts that are near-duplicates, or the same but for white space and case."""
    number: dict[str, int] = {}
    texts = (" ".join(prompt.casefold().split()) for prompt in queries.prompts)
    first_N = np.array([number.setdefault(text, row) for row, text in enumerate(texts)], int)
    return _joined(near_duplicates(queries.embeddings_ND), np.arange(len(first_N)), first_N)


def grouped_splits(
    group_N: IntArray, tasks: Sequence[str], splits: int = 5, test_share: float = 0.2, seed: int = 0
) -> Iterator[tuple[IntArray, IntArray]]:
    """Random (training, test) indices, no group on both sides, about `test_share` of each task's prompts for testing.

    A group counts as of the task of its first prompt. Raises TableError where all prompts are of one group.
    """
    _, first_G, group_N = np.unique(group_N, return_index=True, return_inverse=True)
    if len(first_G) < 2:
        raise TableError("all prompts are near-duplicates of one another: there is nothing to split")
    size_G = np.bincount(group_N)
    task_G = np.array(list(tasks), object)[first_G]
    for split in range(splits):
        generator = np.random.default_rng((seed, split))
        in_test_G = np.zeros(len(first_G), bool)
        for task in sorted(set(task_G)):
            members = generator.permutation(np.flatnonzero(task_G == task))
            # A share that is no whole number is rounded at random, so that small tasks are tested now and then.
            room = int(size_G[members].sum() * test_share + generator.random())
            for member in members:
                if size_G[member] <= room:
                    in_test_G[member] = True
                    room -= size_G[member]
        if in_test_G.all() or not in_test_G.any():
            smallest = int(size_G.argmin())
            in_test_G[smallest] = not in_test_G[smallest]
        yield np.flatnonzero(~in_test_G[group_N]), np.flatnonzero(in_test_G[group_N])


def _joined(group_N: IntArray, left: IntArray, right: IntArray) -> IntArray:
    """The groups after the prompts `left` and `right`, pair by pair, were put together."""
    count = len(group_N)
    pairs = np.unique(np.stack([group_N[left], group_N[right]], 1), axis=0)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    merged: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)[group_N]
    return np.unique(merged, return_inverse=True)[1].astype(np.int64)
