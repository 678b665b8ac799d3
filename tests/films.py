"""Little films, how to copy and to look at them, and what stands in for a restorer."""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from mofme.vision.restorer import Restoration
from mofme.vision.video_file import read_video


def as_it_is(image: Tensor, **_: object) -> Restoration:
    """Stands in for a restorer."""
    return Restoration(image, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)


def inverted(image: Tensor, **_: object) -> Restoration:
    """Stands in for one whose work is seen."""
    return Restoration(1 - image, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)


ITU709 = 1  # as H.264 numbers matrix, primaries, transfer and the narrow range
Begin = Callable[[Any, Any], Iterable[Callable[[], object]] | None]


def written(
    path: Path,
    codec: str,
    format: str,
    frames: Iterable[av.VideoFrame],
    tags: tuple[int, int, int] = (2, 2, 2),
    colour_range: int = 0,
    options: dict[str, str] | None = None,
    begin: Begin = lambda container, stream: None,
) -> Path:
    """Ten frames a second, or at times of their own, with these matrix, primaries and transfer.

    `begin` may give the file more, and returns what is to be done at the end.
    """
    first, *others = frames
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, 10, options or {})
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, format
        stream.codec_context.time_base, stream.codec_context.color_range = Fraction(1, 10), colour_range
        for name, tag in zip(("colorspace", "color_primaries", "color_trc"), tags, strict=True):
            setattr(stream.codec_context, name, tag)
        later = begin(container, stream) or ()
        for number, frame in enumerate((first, *others)):
            frame.pts, frame.time_base = number if frame.pts is None else frame.pts, Fraction(1, 10)
            frame.color_range, (frame.colorspace, frame.color_primaries, frame.color_trc) = colour_range, tags
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for do in later:
            do()
    return path


def play(container: Any, stream: Any, seconds: float = 0.8) -> None:
    """A tone of 440 Hz on all channels."""
    wave = (8000 * np.sin(np.arange(int(48_000 * seconds)) * 2 * np.pi * 440 / 48_000)).astype(np.int16)
    samples = av.AudioFrame.from_ndarray(np.repeat(wave, stream.layout.nb_channels)[None], "s16", stream.layout.name)
    samples.rate, samples.pts = 48_000, 0
    container.mux([*stream.encode(samples), *stream.encode(None)])


def film(
    path: Path,
    frames: int = 8,
    size: tuple[int, int] = (64, 48),
    times: list[int] | None = None,
    sound: str | None = None,
    turned: int = 0,
    codec: str = "libx264",
) -> Path:
    """A red square that walks to the right over a grey ramp, four pixels a frame, at 10 frames a second."""
    width, height = size
    tags = (ITU709, ITU709, ITU709)

    def begin(container: Any, video: Any) -> list[Callable[[], object]]:
        if turned:
            video.set_display_rotation(turned)
        return (
            [partial(play, container, container.add_stream(sound, 48_000, layout="mono"), frames / 10)] if sound else []
        )

    def drawn(number: int) -> av.VideoFrame:
        array = np.tile(np.linspace(40, 200, width).astype(np.uint8)[None, :, None], (height, 1, 3))
        array[8:24, 4 * number : 4 * number + 16] = (220, 30, 30)
        frame = av.VideoFrame.from_ndarray(array, "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=ITU709, dst_color_range=ITU709)
        frame.pts = times[number] if times else number
        return frame

    options = {"crf": "10", "b": "0"}
    return written(path, codec, "yuv420p", map(drawn, range(frames)), tags, ITU709, options, begin)


def copied(
    source: Path,
    target: Path,
    begin: Begin = lambda container, stream: None,
    change: Callable[[av.Packet], av.Packet] = lambda packet: packet,
    **options: str,
) -> Path:
    """The packets of a film in another file, which `begin` may give more, each of them `change`d."""
    with av.open(source) as film, av.open(target, "w", options=options) as container:
        stream = container.add_stream_from_template(film.streams.video[0])
        later = begin(container, stream) or ()
        for packet in film.demux(video=0):
            if packet.size:
                packet = change(packet)
                packet.stream = stream
                container.mux(packet)
        for do in later:
            do()
    return target


def images(path: Path) -> Tensor:
    """All frames (N, 3, H, W)."""
    with read_video(path) as video:
        return torch.stack([frame.image for frame in video])


def frames_in(path: Path) -> list[av.VideoFrame]:
    """All frames, as FFmpeg decodes them."""
    with av.open(path) as container:
        return list(container.decode(video=0))


def each_once(names: str, kinds: Sequence[tuple[object, ...]], suffixes: Sequence[str]) -> pytest.MarkDecorator:
    """Every kind with the first suffix, and the first kind with every suffix: one decides nothing of the other."""
    pairs = [(*kinds[0], suffix) for suffix in suffixes] + [(*kind, suffixes[0]) for kind in kinds[1:]]
    return pytest.mark.parametrize(names, pairs)
