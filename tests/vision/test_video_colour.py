"""The colours of a video: what is not changed stays, whatever holds it, and its tags say what the output has."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.sidedata.sidedata import Type
from torch import Tensor

from mofme.vision.batch import restore_file
from mofme.vision.restorer import Restoration
from mofme.vision.video_file import planes_of, read_video
from tests.films import as_it_is, each_once, frames_in, images, written

ITU709, ITU601, ITU2020, PQ = 1, 6, 9, 16
NARROW, FULL = 1, 2
SUFFIXES = [".mp4", ".mkv", ".mov", ".webm"]


def ramp(bits: int, size: tuple[int, int] = (64, 48), number: int = 0) -> np.ndarray:
    """Smooth colours (H, W, 3) of 16 bits, in steps of these bits."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    levels = np.stack([0.2 + 0.6 * x / size[0], 0.2 + 0.5 * y / size[1], 0.3 + 0.3 * (x + y + number) / sum(size)], -1)
    return (np.round(levels * (2**bits - 1)) / (2**bits - 1) * 65535).round().astype(np.uint16)


def video(
    path: Path,
    codec: str,
    format: str,
    tags: tuple[int, int, int] = (ITU709, ITU709, ITU709),
    colour_range: int = NARROW,
    size: tuple[int, int] = (64, 48),
    options: dict[str, str] | None = None,
) -> Path:
    bits = max(component.bits for component in av.VideoFormat(format, *size).components)
    ramps = (av.VideoFrame.from_ndarray(ramp(bits, size, number), "rgb48le") for number in range(3))
    how = {"format": format, "dst_colorspace": tags[0], "dst_color_range": colour_range}
    return written(path, codec, format, (one.reformat(**how) for one in ramps), tags, colour_range, options)


LOSSLESS = [
    ("a.mkv", "ffv1", "yuv420p", NARROW),
    ("a.mkv", "ffv1", "yuv420p", FULL),
    ("a.mkv", "ffv1", "yuv422p", NARROW),
    ("a.mkv", "ffv1", "yuv444p", NARROW),
    ("a.mkv", "ffv1", "yuv420p10le", NARROW),
    ("a.mkv", "ffv1", "yuv422p10le", FULL),
    ("a.mp4", "mjpeg", "yuvj420p", FULL),
    ("a.mov", "qtrle", "rgb24", FULL),
    ("a.avi", "huffyuv", "yuv422p", NARROW),
    ("a.mkv", "ffv1", "gbrp10le", FULL),
]


@each_once("name, codec, format, colour_range, suffix", LOSSLESS, [".mp4", ".webm"])
def test_what_is_not_changed_is_neither_darker_nor_lighter(tmp_path, name, codec, format, colour_range, suffix):
    source, output = video(tmp_path / name, codec, format, colour_range=colour_range), tmp_path / f"b{suffix}"
    assert restore_file(as_it_is, source, output).error == ""
    difference = images(output) - images(source)
    # Rounding in the conversion was 1/255 to the dark side; encoders err to both sides, and in colour by more.
    lighter = torch.tensor([0.2126, 0.7152, 0.0722]) @ difference.mean(dim=(0, 2, 3))
    assert lighter.abs() < 0.15 / 255
    assert difference.abs().mean() < 1.5 / 255


@pytest.mark.parametrize(
    "format", ["yuv420p", "yuvj422p", "yuv444p", "yuv410p", "yuv420p10le", "gray", "nv12", "p010le"]
)
def test_planes_of_a_picture_that_did_not_change_stay_to_the_bit(format):
    levels = np.random.default_rng(0).integers(0, 65536, (36, 52, 3), np.uint16)
    frame = av.VideoFrame.from_ndarray(levels, "rgb48le").reformat(format=format, threads=1)
    planes = planes_of(frame)
    same = planes.changed(planes.rgb(), planes.rgb())
    sampling = {"nv12": "yuv420p", "p010le": "yuv420p10le", "gray": "yuv444p"}.get(format, format)
    again = same.encoded(52, 36, sampling)
    expected = frame if sampling in (format, "yuv444p") else frame.reformat(format=sampling, threads=1)
    kind = np.uint16 if planes.bits > 8 else np.uint8
    for pair in zip(expected.planes, again.planes, strict=False):
        rows = [np.frombuffer(memoryview(each), kind).reshape(each.height, -1)[:, : each.width] for each in pair]
        np.testing.assert_array_equal(*rows)


@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(ITU709, 0.2126, 0.0722), (ITU601, 0.299, 0.114), (7, 0.212, 0.087), (ITU2020, 0.2627, 0.0593)],
)
@pytest.mark.parametrize("colour_range", [NARROW, FULL])
def test_the_matrix_by_hand(matrix, red, blue, colour_range):
    rgb = np.array([0.75, 0.5, 0.25])
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    values = luma, (rgb[2] - luma) / (2 - 2 * blue), (rgb[0] - luma) / (2 - 2 * red)
    frame = av.VideoFrame(16, 16, "yuv444p16le")
    full = 65535 / 256
    scales = ((219, 16), (224, 128), (224, 128)) if colour_range == NARROW else ((full, 0), (full, 128), (full, 128))
    for plane, value, (scale, offset) in zip(frame.planes, values, scales, strict=True):
        plane.update(np.full((16, plane.line_size // 2), round((value * scale + offset) * 256), np.uint16).tobytes())
    frame.colorspace, frame.color_range = matrix, colour_range
    seen = planes_of(frame).rgb()
    torch.testing.assert_close(seen[:, 3, 5], torch.tensor(rgb, dtype=torch.float32), atol=2e-4, rtol=0)


@each_once(
    "name, codec, format, suffix",
    [("a.mkv", "ffv1", "gbrp10le"), ("a.mov", "qtrle", "rgb24"), ("a.mkv", "libx264rgb", "rgb24")],
    SUFFIXES,
)
def test_of_rgb_the_tags_are_those_of_the_output(tmp_path, name, codec, format, suffix):
    if codec == "libx264rgb" and codec not in av.codecs_available:
        pytest.skip("this build has no such encoder")
    tags = (0, ITU709, 13)  # RGB, with the transfer of sRGB
    source = video(tmp_path / name, codec, format, tags, FULL, options={"crf": "0"})
    assert restore_file(as_it_is, source, tmp_path / f"b{suffix}").error == ""
    [first, *_] = frames_in(tmp_path / f"b{suffix}")
    assert (first.colorspace, first.color_range) == (ITU709, NARROW)
    assert (images(tmp_path / f"b{suffix}") - images(source)).abs().mean() < 1.5 / 255


@each_once("tags, suffix", [((ITU2020, 9, PQ),), ((ITU2020, 9, 18),), ((ITU601, 6, 6),)], SUFFIXES)
def test_ten_bits_stay_with_their_tags(tmp_path, tags, suffix):
    source = video(tmp_path / "a.mkv", "ffv1", "yuv420p10le", tags)
    report = restore_file(as_it_is, source, tmp_path / f"b{suffix}")
    assert (report.error, report.note) == ("", "")
    [first, *_] = frames_in(tmp_path / f"b{suffix}")
    assert first.format.components[0].bits == 10
    assert (first.colorspace, first.color_primaries, first.color_trc) == tags
    # Steps of 1/1023 survive the picture that is restored: in 8 bits the mean error would be a quarter of 1/255.
    assert (images(tmp_path / f"b{suffix}") - images(source)).abs().mean() < 0.6 / 255


def test_the_restorer_sees_more_than_8_bits(tmp_path):
    path = video(tmp_path / "a.mkv", "ffv1", "gbrp10le", (0, 1, 1), FULL)
    expected = torch.from_numpy(ramp(10) / 65535).float().permute(2, 0, 1)
    torch.testing.assert_close(images(path)[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("size", "format", "note"),
    [
        ((64, 48), "yuv420p12le", "its 12 bits a colour are 10 now"),
        ((64, 48), "gbrp16le", "its colours are half as fine as they were (4:2:0); its 16 bits a colour are 10 now"),
        ((14, 10), "yuv420p10le", ""),
    ],
)
def test_what_no_codec_holds_is_said(tmp_path, size, format, note):
    source = video(tmp_path / "a.mkv", "ffv1", format, size=size)
    report = restore_file(as_it_is, source, tmp_path / "b.mp4")
    assert (report.error, report.note) == ("", note)
    assert frames_in(tmp_path / "b.mp4")[0].format.components[0].bits == 10


@pytest.mark.parametrize(("size", "suffix", "rate"), [((40, 64), ".mp4", 10), ((64, 48), ".webm", 480)])
def test_what_an_encoder_cannot_take_goes_another_way(tmp_path, size, suffix, rate):
    """By itself x265 ends the whole process at such a width, and the encoder of AV1 refuses more than 240 a second."""
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("ffv1", rate)
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p10le"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame(*size, "yuv420p10le")))
        container.mux(stream.encode(None))
    assert restore_file(as_it_is, tmp_path / "a.mkv", tmp_path / f"b{suffix}").error == ""
    assert frames_in(tmp_path / f"b{suffix}")[0].format.components[0].bits == 10


def test_the_screen_that_hdr_was_made_for_is_still_named(tmp_path):
    screen = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    params = f"log-level=error:master-display={screen}:max-cll=1000,400"
    source = video(tmp_path / "a.mp4", "libx265", "yuv420p10le", (ITU2020, 9, PQ), options={"x265-params": params})
    assert restore_file(as_it_is, source, tmp_path / "b.mp4").error == ""
    before, after = (frames_in(tmp_path / name)[0].side_data for name in ("a.mp4", "b.mp4"))
    for kind in (Type.MASTERING_DISPLAY_METADATA, Type.CONTENT_LIGHT_LEVEL):
        assert bytes(before[kind]) == bytes(after[kind])


@each_once("format, suffix", [("yuv420p",), ("yuv444p",), ("yuv420p10le",)], SUFFIXES)
def test_the_report_tells_the_size_of_the_output(tmp_path, format, suffix):
    size = (63, 47) if suffix == ".webm" else (64, 48)
    source = video(tmp_path / "a.mkv", "ffv1", format, size=(63, 47))
    report = restore_file(as_it_is, source, tmp_path / f"b{suffix}")
    [first, *_] = frames_in(tmp_path / f"b{suffix}")
    assert (report.width, report.height) == (first.width, first.height) == size
    assert ("63 x 47 pixels and is 64 x 48 now" in report.note) == (size != (63, 47))
    assert (images(tmp_path / f"b{suffix}")[..., :47, :63] - images(source)).abs().mean() < 1.5 / 255


def combed(path: Path, codec: str, top_first: bool, **options: str) -> Path:
    """A bright bar on grey that moves eight pixels between the two fields of a frame."""
    graph = av.filter.Graph()
    start = graph.add_buffer(width=128, height=96, format=av.VideoFormat("yuv420p"), time_base=Fraction(1, 10))
    flag = graph.add("setfield", "tff" if top_first else "bff")
    graph.link_nodes(start, flag, graph.add("buffersink")).configure()
    frames = []
    for number in range(6):
        luma = np.full((144, 128), 128, np.uint8)
        luma[:96] = 60
        for field in (0, 1):
            at = 8 * (2 * number + (field if top_first else 1 - field))
            luma[field:96:2, at : at + 16] = 220
        frame = av.VideoFrame.from_ndarray(luma, "yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 10)
        graph.vpush(frame)
        frames.append(graph.vpull())
    return written(path, codec, "yuv420p", frames, (1, 1, 1), NARROW, options)


def combs(image: Tensor) -> float:
    """How much rows differ from those beside them, more than from the next but one."""
    return float((image[:, 1:-1] - (image[:, :-2] + image[:, 2:]) / 2).abs().mean())


@pytest.mark.parametrize(
    ("name", "codec", "top_first", "options"),
    [
        ("a.mp4", "libx264", True, {"x264-params": "interlaced=1", "crf": "10"}),
        ("a.mkv", "ffv1", True, {"flags": "+ilme+ildct"}),
        ("a.mkv", "ffv1", False, {"flags": "+ilme+ildct"}),
    ],
)
def test_interlaced_frames_lose_their_combs(tmp_path, name, codec, top_first, options):
    source = combed(tmp_path / name, codec, top_first, **options)
    frames = frames_in(source)
    assert frames[2].interlaced_frame, "the test's own film must be interlaced"
    report = restore_file(as_it_is, source, tmp_path / "b.mp4")
    assert (report.error, report.note) == ("", "it was interlaced; its frames are whole now")
    after = frames_in(tmp_path / "b.mp4")
    assert len(after) == len(frames) and not any(frame.interlaced_frame for frame in after)
    assert [round(frame.time - after[0].time, 3) for frame in after] == [number / 10 for number in range(6)]
    assert combs(images(tmp_path / "b.mp4")[3]) < 0.35 * combs(planes_of(frames[3]).rgb())


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
    frames = []
    for number in range(3):
        y, x = np.mgrid[0:48, 0:64]
        samples = np.stack([60 + 2 * x, 80 + 2 * y, 90 + x + y + 5 * number, np.full_like(x, 255)], -1).astype(np.uint8)
        samples[HIDDEN] = (under, under, under, 0)
        frames.append(av.VideoFrame.from_ndarray(samples, "rgba").reformat(format=format, threads=1))
    options = {"crf": "4", "b": "0"} if codec == "libvpx-vp9" else {}
    return written(path, codec, format, frames, options=options)


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
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 4), (40, 90, 140, 0), np.uint8), "bgra")
    written(tmp_path / "a.avi", "rawvideo", "bgra", [frame], (0, 2, 2), FULL)
    image, alpha = seen(tmp_path / "a.avi")
    assert alpha is None
    torch.testing.assert_close(image[0, :, 5, 5], torch.tensor([140, 90, 40]) / 255, atol=1e-4, rtol=0)
