"""A little film, and what leaves it as it is, for tests of videos."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from mofme.vision.restorer import Restoration


def as_it_is(image: Tensor, **_: object) -> Restoration:
    """Stands in for a restorer."""
    return Restoration(image, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)


ITU709 = 1  # as H.264 numbers matrix, primaries, transfer and the narrow range


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
    with av.open(path, "w") as container:
        video = container.add_stream(codec, 10, {"crf": "10", "b": "0"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = Fraction(1, 10)
        for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
            setattr(video.codec_context, name, ITU709)
        if turned:
            video.set_display_rotation(turned)
        if sound:
            tone = container.add_stream(sound, 48_000)
        for number in range(frames):
            array = np.tile(np.linspace(40, 200, width).astype(np.uint8)[None, :, None], (height, 1, 3))
            array[8:24, 4 * number : 4 * number + 16] = (220, 30, 30)
            frame = av.VideoFrame.from_ndarray(array, "rgb24").reformat(
                format="yuv420p", dst_colorspace=ITU709, dst_color_range=ITU709
            )
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound:
            wave = (8000 * np.sin(np.arange(4800 * frames) * 2 * np.pi * 440 / 48_000)).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
            samples.rate, samples.pts = 48_000, 0
            container.mux(tone.encode(samples))
            container.mux(tone.encode(None))
    return path


def each_once(names: str, kinds: Sequence[tuple[object, ...]], suffixes: Sequence[str]) -> pytest.MarkDecorator:
    """Every kind with the first suffix, and the first kind with every suffix: one decides nothing of the other."""
    pairs = [(*kinds[0], suffix) for suffix in suffixes] + [(*kind, suffixes[0]) for kind in kinds[1:]]
    return pytest.mark.parametrize(names, pairs)
