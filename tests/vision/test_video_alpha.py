"""Videos with transparency: hidden colours change nothing that is seen; it goes along where a file can hold it."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from torch import Tensor

from mofme.vision.batch import restore_file
from mofme.vision.restorer import Restoration
from mofme.vision.video_file import read_video
from tests.films import each_once

HIDDEN = np.s_[:, :24]  # columns that are not seen
KINDS = [
    ("a.mov", "qtrle", "argb"),
    ("a.mov", "png", "rgba"),
    ("a.mov", "prores_ks", "yuva444p10le"),
    ("a.mkv", "ffv1", "bgra"),
    ("a.mkv", "ffv1", "yuva420p"),
    ("a.webm", "libvpx-vp9", "yuva420p"),
]


def by_its_mean(image: Tensor, **_: object) -> Restoration:
    """What comes out of a pixel depends on all that there is."""
    return Restoration(image * 0.5 + image.mean() * 0.5, {"rain": 0.9}, torch.zeros(1, 1), (), 0.0)


def clip(path: Path, codec: str, format: str, under: int) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, 10, {"crf": "4", "b": "0"} if codec == "libvpx-vp9" else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, format
        stream.codec_context.time_base = Fraction(1, 10)
        for number in range(3):
            y, x = np.mgrid[0:48, 0:64]
            samples = np.stack([60 + 2 * x, 80 + 2 * y, 90 + x + y + 5 * number, np.full_like(x, 255)], -1).astype(
                np.uint8
            )
            samples[HIDDEN] = (under, under, under, 0)
            frame = av.VideoFrame.from_ndarray(samples, "rgba").reformat(format=format, threads=1)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def seen(path: Path) -> tuple[Tensor, Tensor | None]:
    """Pictures (N, 3, H, W) and alpha (N, 1, H, W)."""
    with read_video(path) as video:
        frames = list(video)
    alphas = [frame.alpha for frame in frames]
    alpha = torch.stack([one for one in alphas if one is not None]) if None not in alphas else None
    return torch.stack([frame.image for frame in frames]), alpha


@each_once("name, codec, format, suffix", KINDS, [".mov", ".mkv", ".webm", ".mp4"])
def test_what_is_seen_does_not_depend_on_what_is_hidden(tmp_path, name, codec, format, suffix):
    results = []
    for under in (0, 255):
        source = clip(tmp_path / f"{under}-{name}", codec, format, under)
        report = restore_file(by_its_mean, source, tmp_path / f"{under}-out{suffix}")
        assert report.error == "" and ("on white" in report.note) == (suffix == ".mp4")
        results.append(seen(tmp_path / f"{under}-out{suffix}"))
    (black, alpha), (white, _) = results
    inside = np.s_[..., 30:]  # away from the edge, where the encoders smear
    assert (black[inside] - white[inside]).abs().mean() < 2 / 255
    if suffix == ".mp4":
        assert alpha is None and black[..., :18].min() > 0.93
    else:
        assert alpha is not None and alpha[..., :18].max() < 0.05 and alpha[..., 30:].min() > 0.95


def test_raw_avi_is_opaque_whatever_it_holds(tmp_path):
    with av.open(tmp_path / "a.avi", "w") as container:
        stream = container.add_stream("rawvideo", 10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 4), (40, 90, 140, 0), np.uint8), "bgra")
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    image, alpha = seen(tmp_path / "a.avi")
    assert alpha is None
    torch.testing.assert_close(image[0, :, 5, 5], torch.tensor([140, 90, 40]) / 255, atol=1e-4, rtol=0)
