"""Animations and files of several pages: nothing is lost of them without a word."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mofme.errors import PictureTooLargeError
from mofme.vision.batch import BatchSettings, restore_file
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import read_frames, read_picture, write_frames
from mofme.vision.report import FileReport
from tests.films import inverted
from tests.vision.pictures import srgb_profile

TIMES = [100, 250, 400]


def samples(number: int, size: tuple[int, int] = (40, 60), channels: int = 3) -> NDArray[np.uint8]:
    """Each of another colour, with a square that moves."""
    array = np.full((*size, channels), 60 + 50 * number, np.uint8)
    array[5:20, 5 + 10 * number : 15 + 10 * number] = 240
    if channels == 4:
        array[..., 3] = 255
        array[30:, :, 3] = 0
    return array


def pages(path: Path, **more: object) -> Path:
    first, *others = (Image.fromarray(samples(number)) for number in range(3))
    first.save(path, save_all=True, append_images=others, **more)
    return path


def told(number: int) -> bytes:
    """EXIF that tells of which page it is."""
    exif = Image.Exif()
    exif[270] = f"page {number}"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def animation(path: Path, channels: int = 3, **more: object) -> Path:
    first, *others = (Image.fromarray(samples(number, channels=channels)) for number in range(3))
    exact = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, **{"duration": TIMES, "loop": 4, **exact, **more})
    return path


def restored(source: Path, output: Path, format: str | None = None, **more: object) -> FileReport:
    report = restore_file(inverted, source, output, BatchSettings(format=format, **more))  # type: ignore[arg-type]
    assert report.error == ""
    return report


def frames_of(path: Path) -> list[tuple[NDArray[np.uint8], float]]:
    with Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            found.append((np.asarray(image.convert("RGBA")), float(image.info.get("duration", 0))))
        return found


@pytest.mark.parametrize(("suffix", "channels"), [(".png", 4), (".webp", 4), (".webp", 3), (".avif", 3)])
def test_every_frame_of_an_animation_is_restored_at_its_time(tmp_path: Path, suffix: str, channels: int) -> None:
    report = restored(animation(tmp_path / f"a{suffix}", channels), tmp_path / f"b{suffix}")
    assert (report.width, report.height, report.note) == (60, 40, "")
    frames = frames_of(tmp_path / f"b{suffix}")
    assert [time for _, time in frames] == TIMES
    for number, (found, _) in enumerate(frames):
        assert np.abs(found[:30, :, :3].astype(int) - (255 - samples(number)[:30])).mean() < 3
        assert (found[:30, :, 3] == 255).all() and (found[30:, :, 3] == (0 if channels == 4 else 255)).all()
    if suffix != ".avif":  # which tells no number of rounds
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.info["loop"] == 4


def test_disposal_and_a_still_apart_of_an_animated_png(tmp_path: Path) -> None:
    source = animation(tmp_path / "a.png", channels=4, default_image=True, duration=TIMES[:2], disposal=1, blend=1)
    restored(source, tmp_path / "b.png")
    with Image.open(source) as before, Image.open(tmp_path / "b.png") as after:
        assert after.default_image and after.n_frames == before.n_frames == 3
        for number in range(3):
            before.seek(number), after.seek(number)
            assert before.info.get("duration") == after.info.get("duration")
            shown, found = (np.asarray(image.convert("RGBA")) for image in (before, after))
            seen = shown[..., 3] > 0
            assert (seen == (found[..., 3] > 0)).all()
            assert np.abs(found[seen][:, :3].astype(int) - (255 - shown[seen][:, :3])).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_every_page_of_a_tiff_is_restored_with_its_size_and_kind(tmp_path: Path, bits: int) -> None:
    pages = []
    for number, (size, grey) in enumerate([((40, 60), False), ((21, 33), True), ((64, 20), False)]):
        rgb = torch.from_numpy(samples(number, size)).permute(2, 0, 1) / 255
        pages.append(Picture(rgb=rgb, grey=grey, bits=bits, format="tiff", exif=told(number)))
    write_frames(tmp_path / "a.tif", pages)
    assert restored(tmp_path / "a.tif", tmp_path / "b.tif").note == ""
    again = read_frames(tmp_path / "b.tif")
    assert [(one.grey, one.bits, one.frames) for one in again] == [(False, bits, 3), (True, bits, 3), (False, bits, 3)]
    for before, after in zip(pages, again, strict=True):
        torch.testing.assert_close(after.rgb, 1 - before.rgb, atol=0.6 / 255, rtol=0)
    with Image.open(tmp_path / "b.tif") as image:  # Pillow is the independent reader
        for number in range(3):
            image.seek(number)
            image.load()
            assert image.tag_v2[270] == f"page {number}"


def test_pages_that_others_wrote(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif", compression="tiff_lzw")
    pages(tmp_path / "a.heic")
    for suffix in (".tif", ".heic"):
        assert restored(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}").note == ""
        for number, (found, _) in enumerate(frames_of(tmp_path / f"b{suffix}")):
            assert np.abs(found[..., :3].astype(int) - (255 - samples(number))).mean() < 3
        assert number == 2


def test_pages_of_many_kinds_do_not_disturb_one_another(tmp_path: Path) -> None:
    first = Image.fromarray(samples(0))
    pages = [Image.fromarray(samples(number, (20 + number, 30))).convert(mode) for number, mode in enumerate("LP1")]
    pages[0].info["icc_profile"] = profile = srgb_profile()
    pages[0].encoderinfo = {"icc_profile": profile}
    first.save(tmp_path / "a.tif", save_all=True, append_images=pages)
    found = read_frames(tmp_path / "a.tif")
    assert [one.rgb.shape[1:] for one in found] == [(40, 60), (20, 30), (21, 30), (22, 30)]
    assert restored(tmp_path / "a.tif", tmp_path / "c.tif").note == ""
    for before, (after, _) in zip((first, *pages), frames_of(tmp_path / "c.tif"), strict=True):
        assert np.array_equal(after[..., :3], 255 - np.asarray(before.convert("RGB")))
    assert [one.icc for one in found] == [None, profile, None, None]
    assert [one.dpi for one in found] == [None] * 4  # of which Pillow says 1


def test_a_page_that_is_not_read_leaves_the_others(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.zeros((4, 4), np.float32)), Image.fromarray(samples(1))]
    Image.fromarray(samples(0)).save(tmp_path / "a.tif", save_all=True, append_images=pages)
    note = restored(tmp_path / "a.tif", tmp_path / "b.tif").note
    assert note == "2 of 3 pages restored, the others are left out"
    for number, (found, _) in enumerate(frames_of(tmp_path / "b.tif")):
        assert np.array_equal(found[..., :3], 255 - samples(number))


@pytest.mark.parametrize("kind", [1, 4])  # a smaller copy, and a mask
def test_what_belongs_to_a_page_is_no_page(tmp_path: Path, kind: int) -> None:
    small = Image.fromarray(samples(1, (10, 15)))
    small.encoderinfo = {"tiffinfo": {254: kind}}
    Image.fromarray(samples(0)).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert [one.frames for one in read_frames(tmp_path / "a.tif")] == [1]
    assert restored(tmp_path / "a.tif", tmp_path / "b.png", "png").note == ""


def test_pages_of_heic_keep_what_each_carries(tmp_path: Path) -> None:
    pages, profile = [], srgb_profile()
    for number, icc in enumerate((profile, None)):
        planes = torch.from_numpy(samples(number, (80, 64), 3 + number)).permute(2, 0, 1) / 255
        alpha = planes[3:] if number else None
        pages.append(Picture(planes[:3], alpha, format="heif", icc=icc, exif=told(number)))
    write_frames(tmp_path / "a.heic", pages)
    with Image.open(tmp_path / "a.heic") as image:
        for number, icc in enumerate((profile, None)):
            image.seek(number)
            assert image.getexif()[270] == f"page {number}" and image.info.get("icc_profile") == icc
    assert [one.alpha is None for one in read_frames(tmp_path / "a.heic")] == [True, False]


@pytest.mark.parametrize(
    ("source", "format", "note", "count"),
    [
        ("a.png", "jpg", "1 of 3 frames restored, the others are left out", 1),
        ("a.webp", "bmp", "1 of 3 frames restored, the others are left out", 1),
        ("a.tif", "png", "1 of 3 pages restored, the others are left out", 1),
        ("a.png", "webp", "", 3),
        ("a.avif", "png", "", 3),
        ("a.png", "tif", "the animation became pages, its times are left out", 3),
    ],
)
def test_another_format_keeps_them_or_says_so(tmp_path: Path, source: str, format: str, note: str, count: int) -> None:
    path = (pages if source.endswith(".tif") else animation)(tmp_path / source)
    assert restored(path, tmp_path / f"out.{format}", format).note == note
    assert len(frames_of(tmp_path / f"out.{format}")) == count


def test_the_limit_is_on_all_frames_together_and_a_claim_of_many_costs_nothing(tmp_path: Path) -> None:
    path = animation(tmp_path / "a.png")  # three times 2,400 pixels
    assert len(read_frames(path, 0.0072)) == 3
    with pytest.raises(PictureTooLargeError, match=r"a\.png: its 3 frames or pages are together over the limit"):
        read_frames(path, 0.0071)
    report = restore_file(inverted, path, tmp_path / "b.png", BatchSettings(max_megapixels=0.0071))
    assert "together over the limit" in report.error and not (tmp_path / "b.png").exists()
    data = bytearray(path.read_bytes())
    chunk = data.index(b"acTL")
    struct.pack_into(">L", data, chunk + 4, 2**31 - 1)
    struct.pack_into(">L", data, chunk + 12, zlib.crc32(data[chunk : chunk + 12]))
    path.write_bytes(data)
    with pytest.raises(PictureTooLargeError):
        read_frames(path)


def test_an_animation_that_is_cut_off_keeps_what_is_there(tmp_path: Path) -> None:
    source = animation(tmp_path / "a.png", channels=4)
    data = source.read_bytes()
    source.write_bytes(data[: data.rindex(b"fdAT") + 10])
    report = restored(source, tmp_path / "b.png")
    assert report.note == "2 of 3 frames restored, the others are left out"
    assert len(frames_of(tmp_path / "b.png")) == 2


@pytest.mark.parametrize(
    ("kind", "share", "note", "count"),
    [
        ("webp", 0.7, "the file is cut off or damaged: its last frames are missing", 2),
        ("tif", 0.6, "1 of 3 pages restored, the others are left out", 1),
    ],
)
def test_what_is_cut_off_behind_its_first_frame_keeps_those_before(
    tmp_path: Path, kind: str, share: float, note: str, count: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (3, 40, 60, 3), np.uint8)
    first, *others = (Image.fromarray(samples(number) // 2 + noise[number]) for number in range(3))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others, lossless=True)
    data = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(data[: int(share * len(data))])
    assert restored(tmp_path / f"a.{kind}", tmp_path / f"b.{kind}").note == note
    after = frames_of(tmp_path / f"b.{kind}")
    assert len(after) == count
    for (found, _), before in zip(after, (first, *others), strict=False):
        assert np.abs(found[..., :3].astype(int) - (255 - np.asarray(before))).max() <= 1


@pytest.mark.parametrize("share", [0.3, 0.51])
def test_a_jpeg_whose_second_picture_is_cut_off_is_read(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    first = Image.fromarray(noise)
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[first])
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: int(share * len(data))])
    notes = read_picture(tmp_path / "a.jpg").notes
    assert notes[0] == "left out: second picture"
    assert [("rows are missing" in note) for note in notes[1:]] == [True] * (share < 0.5)
