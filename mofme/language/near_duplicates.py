"""Prompts that are nearly the same, and splits that never put two of them on different sides.

A router that has learnt from a near-duplicate of a prompt is asked what it already knows.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mofme.errors import TableError
from mofme.language.sentence_encoder import FloatArray, IntArray, Queries

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


def same_text(prompts: Sequence[str]) -> IntArray:
    """Groups (N,) of the prompts that differ by white space and case at most."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(" ".join(prompt.casefold().split()), len(number)) for prompt in prompts], int)


def groups_of(queries: Queries, threshold: float = 0.95) -> IntArray:
    """Groups (N,) of the prompts that are near-duplicates, or the same but for white space and case."""
    group_N = near_duplicates(queries.embeddings_ND, threshold)
    same_N = same_text(queries.prompts)
    _, first_N = np.unique(same_N, return_index=True)
    return _joined(group_N, np.arange(len(group_N)), first_N[same_N])


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
