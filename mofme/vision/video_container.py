"""What the container of a video tells beside its frames: how long it should be, what is hidden, and a second view."""

import io
import re
from contextlib import suppress
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

_ASF, _ASF_FILE = b"\x30\x26\xb2\x75", bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # WMV, and its own length
# What Matroska says of rows and columns to be hidden, behind the height; each is one or two bytes.
_CROPPED = re.compile(rb"(?s)\xba(?:\x81.|\x82..)(?:[\x9a\x9d]\x81.)*((?:\x54[\xaa\xbb\xcc\xdd](?:\x81.|\x82..))+)")
_SIDE = re.compile(rb"(?s)\x54(.)(?:\x81(.)|\x82(..))")
# The NAL units of another view: HEVC tells them by their heads, H.264 by their kind.
_OTHER_VIEW = {
    "hevc": re.compile(rb"\x00\x00\x01[\x00-\x7f][\x08-\xff]"),
    "h264": re.compile(rb"\x00\x00\x01[\x14\x34\x54\x74]"),
}
NOTHING_HIDDEN = (0, 0, 0, 0)


def missing_share(path: Path) -> float:
    """Which share of a file is not there, by what its container says of its own length; 0 if that tells nothing."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4096)
        whole = 0
        if head.startswith(b"RIFF"):
            told = int.from_bytes(head[4:8], "little")
            whole = 8 + told if told < 2**32 - 1 else 0  # recorders fill it in at their end, if ever
        elif head.startswith(b"\x1aE\xdf\xa3"):  # Matroska: a head, and a segment that holds all else
            length, at = _matroska_length(head, 4)
            length, at = _matroska_length(head, at + (length or 0) + 4)
            whole = at + length if length else 0
        elif head[4:8] == b"ftyp":
            while whole + 8 <= size:
                file.seek(whole)
                box = file.read(16)
                length = int.from_bytes(box[:4], "big")
                length = int.from_bytes(box[8:], "big") if length == 1 else length
                if length < 8 or not box[4:8].strip().isalnum():  # to the end, or what a camera wrote behind all boxes
                    return 0.0
                whole += length
        elif head.startswith(_ASF) and (at := head.find(_ASF_FILE)) > 0:
            whole = int.from_bytes(head[at + 40 : at + 48], "little")  # recorders fill this in at their end, too
    return max(whole - size, 0) / max(whole, 1)


def _matroska_length(data: bytes, at: int) -> tuple[int | None, int]:
    """A length and where it ends; None if it is not known, as of a stream that was recorded."""
    count = 9 - data[at].bit_length() if at < len(data) else 9
    bits = 7 * count
    value = int.from_bytes(data[at : at + count], "big") & (2**bits - 1)
    return (None if count > 8 or value == 2**bits - 1 else value), at + count


def hidden_by(stream: VideoStream) -> tuple[int, ...]:
    """How many rows and columns of its frames the file has players hide, at the bottom, the top, left and right.

    The library does not show what it read of that, but writes it into any file.
    """
    if not stream.container.format.name.startswith(("mov", "matroska")):
        return NOTHING_HIDDEN
    with suppress(av.FFmpegError, ValueError), av.open(file := io.BytesIO(), "w", format="matroska") as trial:
        trial.add_stream_from_template(stream)
        trial.start_encoding()
        if found := _CROPPED.search(file.getvalue()):
            sides = {side: int.from_bytes(one or two, "big") for side, one, two in _SIDE.findall(found[1])}
            bottom, top, left, right = hidden = tuple(
                sides.get(side, 0) for side in (b"\xaa", b"\xbb", b"\xcc", b"\xdd")
            )
            if bottom + top < stream.codec_context.height and left + right < stream.codec_context.width:
                return hidden
    return NOTHING_HIDDEN


def has_other_view(packet: "av.Packet[VideoStream]") -> bool:
    """Whether a packet holds, beside its picture, that of another eye, which is not decoded."""
    kind = packet.stream.codec_context.name
    if kind not in _OTHER_VIEW:
        return False
    with suppress(av.FFmpegError, ValueError):
        whole = BitStreamFilterContext(f"{kind}_mp4toannexb", packet.stream)
        return any(_OTHER_VIEW[kind].search(bytes(part)) for part in whole.filter(av.Packet(bytes(packet))))
    return False
