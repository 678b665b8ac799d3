"""A video on its way to a file, in segments that outlive a stop: each is encoded for itself and written whole.

At the end they are joined without being encoded again, in the same way whether the work was stopped or not.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import av
import numpy as np
import torch
from av.packet import PacketSideData, packet_sidedata_type_from_literal
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mofme.errors import PictureError
from mofme.files import atomic_file, only_one

SEGMENT_FRAMES = 48  # what a stop can cost
_LONGEST = 255 - len("..mofme-segments")  # bytes
_ALPHA: Final = "matroska_block_additional"  # where VP9 keeps it


@dataclass(frozen=True)
class Checkpoint:
    """What the next segment needs to know of those before it: tensors and plain values."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Segment:
    """Encoded frames in the order of decoding, and all there is to know after the last of them.

    `data` holds the packets, and behind each what lies beside it; `table` (N, 4) has a row for each: bytes, bytes
    beside it, time, and whether it is a key frame.
    """

    data: bytes
    table: np.ndarray[Any, np.dtype[np.int64]]
    checkpoint: Checkpoint

    def packets(self) -> "Iterator[av.Packet[Any]]":
        """All with their times, but not yet those of decoding."""
        at = 0
        for size, beside, pts, is_key in self.table.tolist():
            packet: av.Packet[Any] = av.Packet(self.data[at : at + size])
            packet.pts, packet.is_keyframe = pts, bool(is_key)
            if beside:
                kind = packet_sidedata_type_from_literal(_ALPHA)
                extra = PacketSideData(kind, beside)  # type: ignore[call-arg]
                extra.update(self.data[at + size : at + size + beside])
                packet.set_sidedata(extra)
            at += size + beside
            yield packet


def segment_of(packets: "Sequence[av.Packet[Any]]", checkpoint: Checkpoint) -> Segment:
    """Of packets as an encoder gives them, from a key frame on."""
    parts, rows = [], []
    for packet in packets:
        beside = bytes(packet.get_sidedata(_ALPHA)) if packet.has_sidedata(_ALPHA) else b""
        parts += [bytes(packet), beside]
        rows.append((packet.size, len(beside), packet.pts, packet.is_keyframe))
    return Segment(b"".join(parts), np.array(rows, np.int64).reshape(-1, 4), checkpoint)


class Segments:
    """The segments of the video that is to be at `output`, kept in a hidden folder beside it.

    Those of another `identity` (source, settings, model) are thrown away; without one none are kept for another run.
    Raises PictureError while another run has them.
    """

    def __init__(self, output: Path, identity: dict[str, Any] | None) -> None:
        name = output.name
        if len(os.fsencode(name)) > _LONGEST:  # with what is added it would be no name of a file
            name = hashlib.sha256(os.fsencode(name)).hexdigest()
        self.folder = output.with_name(f".{name}.mofme-segments")
        self._identity = json.dumps(identity, sort_keys=True)
        self._lasting = identity is not None
        self._count, self._cleared = 0, False
        self.checkpoint: Checkpoint | None = None
        self._lock: IO[bytes] | None = None
        with suppress(OSError):  # where nothing can be written is told when a segment is
            self.folder.mkdir(exist_ok=True)
            self._lock = only_one(self.folder / "lock")
            if self._lock is None:
                why = "another run is restoring this video; wait for it, or name another output."
                raise PictureError(f"{output}: {why}")
        while self._lasting and (checkpoint := self._known(self._count)) is not None:
            self.checkpoint = checkpoint
            self._count += 1
        for path in () if self._count else self.folder.glob("*.safetensors"):
            with suppress(OSError):
                path.unlink()

    def add(self, segment: Segment) -> None:
        """Raises OSError if it cannot be written."""
        tensors = {f"state {name}": tensor.contiguous() for name, tensor in segment.checkpoint.tensors.items()}
        tensors["data"] = torch.frombuffer(bytearray(segment.data), dtype=torch.uint8)
        tensors["table"] = torch.from_numpy(segment.table)
        words = {"identity": self._identity, "values": json.dumps(segment.checkpoint.values)}
        with atomic_file(self._path(self._count)) as file:
            file.write(save(tensors, words))
        self._count += 1
        self.checkpoint = segment.checkpoint

    def times(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Those of all frames, in the order of decoding."""
        tables = [np.zeros((0, 4), np.int64)]
        for number in range(self._count):
            with safe_open(self._path(number), "pt") as file:
                tables.append(file.get_tensor("table").numpy())
        return np.concatenate(tables)[:, 2]

    def packets(self) -> "Iterator[av.Packet[Any]]":
        """Those of all segments; one segment is in memory at a time."""
        for number in range(self._count):
            with safe_open(self._path(number), "pt") as file:
                data, table = file.get_tensor("data").numpy().tobytes(), file.get_tensor("table").numpy()
            yield from Segment(data, table, Checkpoint()).packets()

    def clear(self) -> None:
        """Remove them all, while no other run can have them."""
        if self._lock is not None and sys.platform == "win32":  # where it locks nothing, and would stay while open
            self._lock.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._count, self._cleared = 0, True

    def close(self) -> None:
        """The work is stopped: what another run cannot use goes."""
        if not (self._cleared or (self._lasting and self._count)):
            self.clear()
        if self._lock is not None:
            self._lock.close()

    def _known(self, number: int) -> Checkpoint | None:
        try:
            with safe_open(self._path(number), "pt") as file:
                words = file.metadata()
                if words["identity"] != self._identity:
                    return None
                names = [name for name in file.keys() if name.startswith("state ")]  # noqa: SIM118 - not a mapping
                tensors = {name.removeprefix("state "): file.get_tensor(name) for name in names}
                return Checkpoint(tensors, json.loads(words["values"]))
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.safetensors"
