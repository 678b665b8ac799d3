"""The hidden states of all tokens, on disk: memory stays the same however many tokens there are.

A file holds the stream as it enters one layer. Axis names: P passages, L tokens of a passage, D features.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mofme.files import atomic_file

_AT_ONCE = 4  # passages


class HiddenStates:
    """Float32 (P, L, D) in one file, read and written a few passages at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array = np.load(path, mmap_mode="r")
        self.passages, self.length, self.dim = self._array.shape

    @classmethod
    def write(cls, path: Path, shape: tuple[int, int, int], blocks: Iterator[Tensor]) -> "HiddenStates":
        """Fill a file block by block; it appears when it is complete."""
        with atomic_file(path) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block_BLD in blocks:
                file.write(block_BLD.contiguous().numpy().data)
        return cls(path)

    def through(self, path: Path, step: Callable[[Tensor], Tensor]) -> "HiddenStates":
        """What `step` makes of all passages (B, L, D) -> (B, L, D), in a file of its own."""
        return self.write(path, self._array.shape, (step(block) for block in self.blocks()))

    def blocks(self, passages: int | None = None) -> Iterator[Tensor]:
        """All passages, or the first so many, a few at a time (B, L, D)."""
        stop = self.passages if passages is None else passages
        for start in range(0, stop, _AT_ONCE):
            yield torch.from_numpy(np.array(self._array[start : min(start + _AT_ONCE, stop)]))

    def tokens(self, index_T: Tensor) -> Tensor:
        """These tokens (T, D), counted through all passages."""
        flat_TD = self._array.reshape(-1, self.dim)
        return torch.from_numpy(flat_TD[index_T.numpy()])

    def __len__(self) -> int:
        """All tokens."""
        return int(self.passages * self.length)

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
