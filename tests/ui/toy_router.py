"""A router of prompts that learns a made-up table at once, and sees nothing of a prompt but its words."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from mofme.language.sentence_encoder import SentenceEncoder
from mofme.language.tables.table import FloatArray, RoutingTable
from mofme.papers.carrot.carrot import CarrotRouter
from mofme.papers.carrot.trained_router import TrainedRouter

DEAR, CHEAP = "dear <b>", "cheap"


class WordEncoder(SentenceEncoder):
    """Embeds a prompt by which words are in it."""

    def __init__(self, remember: bool = False) -> None:
        super().__init__(remember=False)

    def embed(self, prompts: Sequence[str], report: Callable[[int, int], None] | None = None) -> FloatArray:
        points_ND = np.full((len(prompts), 64), 1e-3)
        for row, prompt in enumerate(prompts):
            for word in prompt.lower().split():
                points_ND[row, zlib.crc32(word.encode()) % 64] += 1
        return points_ND / np.linalg.norm(points_ND, axis=1, keepdims=True)


def toy_table(count: int = 60) -> RoutingTable:
    """Sums, which the dear model alone can do, and rhymes, which both can; the dear one costs ten times as much."""
    sums = np.arange(count) % 2 == 0
    prompts = tuple(f"what sum is {row}" if is_sum else f"find a rhyme {row}" for row, is_sum in enumerate(sums))
    quality_NM = np.stack([np.full(count, 0.9), np.where(sums, 0.1, 0.8)], 1)
    cost_NM = np.tile([1e-3, 1e-4], (count, 1))
    tasks = tuple("sums" if is_sum else "rhymes" for is_sum in sums)
    return RoutingTable("toy", prompts, (DEAR, CHEAP), quality_NM, cost_NM, tasks)


def toy_router() -> TrainedRouter:
    encoder, table = WordEncoder(), toy_table()
    carrot = CarrotRouter("knn")
    carrot.fit(table, encoder.queries(table.prompts))
    return TrainedRouter(carrot, encoder, "toy")
