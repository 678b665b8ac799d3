"""What files carry besides pixels comes back: orientation, EXIF, profiles, resolution, captions."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, IptcImagePlugin
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mofme.vision.picture.file import FORMATS, read_picture, read_to_keep, write_picture
from tests.films import each_once
from tests.vision.pictures import (
    CAMERA,
    GPS,
    as_16_bits,
    as_bytes,
    exif_block,
    noise,
    png,
    resave,
    smooth,
    srgb_profile,
    written,
)

SUFFIXES = [".jpg", ".png", ".webp", ".tif", ".avif", ".heic"]

pytestmark = pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")


@each_once("orientation, suffix", [(one,) for one in (6, 1, 2, 3, 4, 5, 7, 8)], SUFFIXES)
def test_orientation_is_applied_once_as_pillow_would(tmp_path, suffix, orientation):
    path = tmp_path / f"in{suffix}"
    Image.fromarray(noise()).save(path, exif=exif_block(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))

    np.testing.assert_array_equal(as_bytes(read_picture(path)), expected)
    with Image.open(resave(path, f"out{suffix}")) as image:
        image.load()
        assert image.getexif().get(0x0112, 1) == 1
        assert (image.height, image.width) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_a_16_bit_png(tmp_path, orientation):
    rgb = torch.from_numpy(noise(dtype=np.uint16).astype(np.float32) / 65535).permute(2, 0, 1)
    written(tmp_path / "in.png", rgb, bits=16, exif=exif_block(orientation).removeprefix(b"Exif\0\0"))
    with Image.open(tmp_path / "in.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))  # the upper byte of each sample
    picture = read_picture(tmp_path / "in.png")
    np.testing.assert_array_equal(as_16_bits(picture) >> 8, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exif_and_profile_survive(tmp_path, suffix):
    path = tmp_path / f"in{suffix}"
    profile = srgb_profile()
    Image.fromarray(smooth()).save(path, format="PNG", exif=exif_block(6), icc_profile=profile)
    picture = read_picture(path)
    write_picture(tmp_path / f"first{suffix}", picture.rgb, picture)

    with Image.open(resave(tmp_path / f"first{suffix}", f"second{suffix}")) as image:
        image.load()
        assert image.info["icc_profile"] == profile
        exif = image.getexif()
        assert exif.get(0x010F) == "Maker"
        assert exif.get_ifd(GPS) == {1: "N", 2: (48.0, 8.0, 14.5)}
        assert exif.get_ifd(CAMERA) == {36867: "2024:02:29 12:00:00", 37500: b"maker\0note"}


def test_exif_of_a_jpeg_changes_in_nothing_but_orientation_and_thumbnail(tmp_path):
    # Little-endian TIFF: header, one entry (orientation 6) at offset 8, then the link to the thumbnail's directory.
    block = b"II*\0" + struct.pack("<LHHHLHHL", 8, 1, 0x0112, 3, 1, 6, 0, 26) + b"anything, kept"
    Image.fromarray(noise()).save(tmp_path / "in.jpg", exif=b"Exif\0\0" + block)
    with Image.open(resave(tmp_path / "in.jpg", "out.jpg")) as image:
        kept = image.info["exif"]
    upright = b"II*\0" + struct.pack("<LHHHLHHL", 8, 1, 0x0112, 3, 1, 1, 0, 0) + b"anything, kept"
    assert kept == b"Exif\0\0" + upright


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_xmp_is_kept_and_its_orientation_reset(tmp_path, suffix):
    written(tmp_path / f"a{suffix}", torch.zeros(3, 4, 4), xmp=b'<x:xmpmeta tiff:Orientation="6" dc:title="T"/>')
    xmp = read_picture(tmp_path / f"a{suffix}").xmp
    assert b'tiff:Orientation="6"' not in xmp and b'dc:title="T"' in xmp


def test_metadata_that_cannot_be_written_does_not_lose_the_picture(tmp_path):
    # A make whose type is IFD, a resolution of 0/0 in the camera's directory: read by Pillow, not written again.
    tags = struct.pack("<HHHLLHHLL", 2, 271, 13, 1, 7, 34665, 4, 1, 38) + struct.pack("<L", 0)
    camera = struct.pack("<HHHLLL", 1, 33437, 5, 1, 56, 0) + struct.pack("<LL", 0, 0)
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0" + struct.pack("<L", 8) + tags + camera)
    picture = read_picture(tmp_path / "a.jpg")
    for suffix in FORMATS:
        write_picture(tmp_path / f"b{suffix}", picture.rgb, picture)
        assert read_picture(tmp_path / f"b{suffix}").rgb.shape == (3, 37, 53)


def test_metadata_that_avif_does_not_take_are_told(tmp_path):
    # A unit that is text in place of a number.
    tags = struct.pack("<LHHHL4sL", 8, 1, 296, 2, 4, b"abc", 0)
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0" + tags)
    for kind, told in (("jpeg", ()), ("webp", ()), ("avif", ("metadata that AVIF's encoder refuses are left out",))):
        assert read_to_keep(tmp_path / "a.jpg", tmp_path / "b", kind)[0].notes == told
    assert read_picture(resave(tmp_path / "a.jpg", "b.avif")).exif is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_resolution_is_kept_unless_it_is_absurd(tmp_path, suffix):
    Image.fromarray(noise()).save(tmp_path / f"a{suffix}", dpi=(300, 200))
    assert read_picture(resave(tmp_path / f"a{suffix}", f"b{suffix}")).dpi == pytest.approx((300, 200), abs=0.02)
    for absurd in ((0, 0), (1e6, 1e6)):
        Image.fromarray(noise()).save(tmp_path / "c.png", dpi=absurd)
        assert read_picture(tmp_path / "c.png").dpi is None


@pytest.mark.parametrize(("bits", "row"), [(8, bytes(9)), (16, bytes(18))])
def test_gamma_primaries_and_text_of_a_png_are_kept(tmp_path, bits, row):
    kept = [
        (b"gAMA", struct.pack(">L", 100_000)),
        (b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"mDCV", struct.pack(">8H2L", 35400, 14600, 8500, 39850, 6550, 2300, 15635, 16450, 10_000_000, 50)),
        (b"cLLI", struct.pack(">2L", 10_000_000, 4_000_000)),
        (b"tEXt", b"Title\0a hill"),
    ]
    (tmp_path / "in.png").write_bytes(png(bits, 2, row, *kept, (b"tEXt", b"Raw profile type exif\0old orientation")))
    assert read_picture(resave(tmp_path / "in.png", "out.png")).png_chunks == tuple(kept)
    with Image.open(tmp_path / "out.png") as image:
        assert (image.info["gamma"], image.text["Title"]) == (1, "a hill")
        assert image.info["chromaticity"][2:4] == (0.64, 0.33)


IPTC = b"\x1c\x02\x78\x00\x05a hil"  # record 2, dataset 120: the caption
RESOURCES = b"8BIM" + struct.pack(">HHL", 0x0404, 0, 10) + IPTC


def test_caption_and_comment_of_a_jpeg_are_kept(tmp_path):
    resources = b"Photoshop 3.0\0" + RESOURCES
    segment = b"\xff\xed" + struct.pack(">H", len(resources) + 2) + resources
    Image.fromarray(smooth()).save(tmp_path / "in.jpg", comment=b"taken at dawn", extra=segment)
    with Image.open(resave(tmp_path / "in.jpg", "out.jpg")) as image:
        assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"a hil"}
        assert image.info["comment"] == b"taken at dawn"


@pytest.mark.parametrize(("tag", "data"), [(33723, IPTC), (34377, RESOURCES)])
def test_captions_of_a_tiff_go_along_and_are_told_where_they_cannot(tmp_path, tag, data):
    directory, path = ImageFileDirectory_v2(), tmp_path / "a.tif"
    directory.tagtype[tag] = 1
    directory[tag] = data
    Image.fromarray(smooth()).save(path, tiffinfo=directory)
    for suffix in (".tif", ".jpg"):
        with Image.open(resave(path, f"out{suffix}")) as image:
            assert IptcImagePlugin.getiptcinfo(image) == {(2, 120): b"a hil"}
    notes = [read_to_keep(path, tmp_path / "a", kind)[0].notes for kind in ("jpeg", "webp")]
    assert notes == [(), ("IPTC captions are left out",)]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_map_still_knows_its_place(tmp_path, bits):
    place = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 5e5, 5.2e6, 0.0), 34735: (1, 1, 0, 0), 42113: "-9999"}
    directory = ImageFileDirectory_v2()
    for tag, value in place.items():
        directory[tag] = value
    Image.fromarray(smooth()).save(tmp_path / "in.tif", tiffinfo=directory)
    picture = read_picture(tmp_path / "in.tif")
    write_picture(tmp_path / "out.tif", picture.rgb, replace(picture, bits=bits))
    with Image.open(tmp_path / "out.tif") as image:
        assert {tag: image.tag_v2[tag] for tag in place} == place


def test_the_resolution_of_a_tiff_turns_with_it(tmp_path):
    Image.fromarray(smooth()).save(tmp_path / "a.tif", dpi=(300, 150), tiffinfo={274: 6})
    assert read_picture(tmp_path / "a.tif").dpi == (150, 300)


def test_text_and_colours_of_a_png_are_told_where_they_cannot_go_along(tmp_path):
    told = {
        (b"tEXt", b"Title\0a hill"): "text of the PNG is left out",
        (b"gAMA", struct.pack(">L", 100_000)): "the PNG's own colour space is left out: it may look other",
        (b"gAMA", struct.pack(">L", 45_455)): "",
        (b"cLLI", bytes(8)): "how bright the PNG's HDR is meant to be is left out",
    }
    for chunk, note in told.items():
        (tmp_path / "a.png").write_bytes(png(8, 2, bytes(9), chunk))
        for kind, expected in (("png", ()), ("jpeg", (note,) if note else ())):
            assert read_to_keep(tmp_path / "a.png", tmp_path / "a", kind)[0].notes == expected


@pytest.mark.parametrize(("kind", "is_told"), [("jpeg", False), ("tiff", False), ("webp", True), ("avif", True)])
def test_a_profile_of_greys_is_told_where_it_cannot_go_along(tmp_path, kind, is_told):
    profile = srgb_profile()
    Image.new("L", (8, 8)).save(tmp_path / "a.png", icc_profile=profile[:16] + b"GRAY" + profile[20:])
    (first,) = read_to_keep(tmp_path / "a.png", tmp_path / "a", kind)
    assert first.notes == ("the profile of its greys is left out: it may look other",) * is_told


def test_a_profile_of_greys_is_told_where_they_become_colours(tmp_path):
    profile = srgb_profile()
    profile, note = profile[:16] + b"GRAY" + profile[20:], "the profile of its greys is left out: it may look other"
    one, other = Image.new("L", (8, 8)), Image.new("L", (8, 8), 9)
    one.save(tmp_path / "a.png", save_all=True, append_images=[other], icc_profile=profile)
    written(tmp_path / "b.png", torch.zeros(3, 8, 8), bits=16, grey=True, alpha=torch.ones(1, 8, 8) / 2, icc=profile)
    for name, kind, told in (("a.png", "png", (note,)), ("b.png", "png", ()), ("b.png", "tiff", (note,))):
        assert read_to_keep(tmp_path / name, tmp_path / "out", kind)[0].notes == told


def test_a_caption_too_long_for_a_jpeg_does_not_lose_the_picture(tmp_path):
    written(tmp_path / "a.jpg", torch.zeros(3, 4, 4), iptc=bytes(70_000))
    assert read_picture(tmp_path / "a.jpg").iptc is None
