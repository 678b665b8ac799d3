"""What files carry comes back: pixels, modes, bit depth, formats."""

import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from mofme.errors import PictureError
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import read_picture, write_picture
from tests.vision.pictures import as_16_bits, as_bytes, exif_block, noise, png, resave, smooth, written

pytestmark = pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_modes_come_back_exactly(tmp_path, mode, channels, suffix):
    samples = noise(channels=channels)
    path = tmp_path / f"in{suffix}"
    Image.fromarray(samples.squeeze(-1) if channels == 1 else samples).save(path)
    with Image.open(resave(path, f"out{suffix}")) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image).reshape(samples.shape), samples)


@pytest.mark.parametrize("suffix", [".webp", ".avif", ".heic"])
def test_alpha_is_kept_by_other_formats(tmp_path, suffix):
    path = tmp_path / f"in{suffix}"
    samples = np.dstack([smooth(), np.full((48, 64), 77, np.uint8)])
    Image.fromarray(samples).save(path)
    with Image.open(resave(path, f"out{suffix}")) as image:
        assert image.mode == "RGBA"
        assert abs(np.asarray(image)[..., 3].astype(int) - 77).max() <= 1


def test_colour_given_to_a_grey_file_becomes_its_luma(tmp_path):
    with Image.open(written(tmp_path / "a.png", torch.tensor([1.0, 0.5, 0.0]).reshape(3, 1, 1), grey=True)) as image:
        assert image.getpixel((0, 0)) == 151  # 255 * (.299 * 1 + .587 * .5) = 151.09


def test_palettes_become_rgb_and_one_bit_is_grey(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "in.png", transparency=1)
    with Image.open(resave(tmp_path / "in.png", "out.png")) as out:
        assert [out.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0, 255), (0, 0, 255, 0)]
    image.save(tmp_path / "opaque.png")
    opaque = read_picture(tmp_path / "opaque.png")
    assert not opaque.grey and opaque.alpha is None
    Image.new("1", (3, 2), 1).save(tmp_path / "bilevel.png")
    assert read_picture(tmp_path / "bilevel.png").grey


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_colour_round_trip_is_exact(tmp_path, channels, suffix):
    samples = noise(130, 70, channels, np.uint16)
    bgr = samples[..., [2, 1, 0, 3][:channels]] if channels == 4 else samples[..., ::-1]
    path = tmp_path / f"Größe 漢{suffix}"
    path.write_bytes(cv2.imencode(suffix, bgr)[1].tobytes())  # OpenCV's writer is the independent reference

    picture = read_picture(path)
    assert picture.bits == 16
    np.testing.assert_array_equal(as_16_bits(picture), samples[..., :3])
    again = cv2.imdecode(np.frombuffer(resave(path, f"out{suffix}").read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(again, bgr)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_round_trip_is_exact(tmp_path, suffix):
    samples = noise(70, 33, 1, np.uint16)[..., 0]
    Image.fromarray(samples).save(tmp_path / f"in{suffix}")
    with Image.open(resave(tmp_path / f"in{suffix}", f"out{suffix}")) as image:
        assert image.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(image), samples)


def test_16_bit_grey_tiff_whose_zero_is_white(tmp_path):
    written(tmp_path / "a.tif", torch.zeros(3, 1, 1), grey=True, bits=16)
    black_is_zero, white_is_zero = (struct.pack("<HHLHH", 262, 3, 1, value, 0) for value in (1, 0))
    data = (tmp_path / "a.tif").read_bytes()
    assert data.count(black_is_zero) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(black_is_zero, white_is_zero))
    assert read_picture(tmp_path / "a.tif").rgb.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("target", ["out.png", "out.tif"])
def test_16_bit_grey_with_alpha(tmp_path, target):
    samples = torch.from_numpy(noise(9, 7, 2, np.uint16).astype(np.float32) / 65535)
    grey, alpha = samples[..., 0].expand(3, -1, -1), samples[..., 1][None]
    written(tmp_path / "in.png", grey, alpha=alpha, grey=True, bits=16)
    assert read_picture(tmp_path / "in.png").grey
    again = read_picture(resave(tmp_path / "in.png", target))
    assert torch.equal(again.rgb, grey) and torch.equal(again.alpha, alpha) and again.bits == 16


# Three pixels of grey 1, the clear 2 and 3, at the top of their bytes; of 1 bit 1, 0, 1, where 0 is clear.
@pytest.mark.parametrize(
    ("bits", "row", "clear", "greys", "most"),
    [
        (1, b"\xa0", 0, [255, 0, 255], 255),
        (2, b"\x6c", 2, [85, 170, 255], 255),
        (4, b"\x12\x30", 2, [17, 34, 51], 255),
        (16, struct.pack(">HHH", 7, 50000, 50001), 50000, [7, 50000, 50001], 65535),
    ],
)
def test_grey_png_with_one_clear_grey(tmp_path, bits, row, clear, greys, most):
    (tmp_path / "in.png").write_bytes(png(bits, 0, row, (b"tRNS", struct.pack(">H", clear))))
    for picture in (read_picture(tmp_path / "in.png"), read_picture(resave(tmp_path / "in.png", "out.png"))):
        assert picture.grey and picture.bits == max(bits, 8)
        assert (picture.rgb[0, 0] * most).round().tolist() == greys
        assert picture.alpha.flatten().tolist() == [1, 0, 1]


def test_premultiplied_16_bit_tiff_is_divided_by_its_alpha(tmp_path):
    # 40000 at half alpha is stored as 20000.
    alpha = torch.full((1, 1, 1), 32768 / 65535)
    written(tmp_path / "in.tif", torch.full((3, 1, 1), 20000 / 65535), alpha=alpha, bits=16)
    data = (tmp_path / "in.tif").read_bytes()
    entry = struct.pack("<HHLL", 338, 3, 1, 2)
    assert data.count(entry) == 1
    (tmp_path / "in.tif").write_bytes(data.replace(entry, struct.pack("<HHLL", 338, 3, 1, 1)))
    assert as_16_bits(read_picture(tmp_path / "in.tif")).tolist() == [[[39999, 39999, 39999]]]


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "in.jpg", quality=100, icc_profile=b"not a profile")
    picture = read_picture(tmp_path / "in.jpg")
    assert picture.icc is None
    np.testing.assert_allclose(picture.rgb[:, 4, 4], [1, 0, 0], atol=0.02)  # full magenta and yellow: red


def test_lab_becomes_srgb_and_leaves_its_profile(tmp_path):
    lab = ImageCms.createProfile("LAB")
    convert = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    image = ImageCms.applyTransform(Image.new("RGB", (8, 8), (200, 40, 90)), convert)
    image.save(tmp_path / "a.tif", icc_profile=ImageCms.ImageCmsProfile(lab).tobytes())
    picture = read_picture(tmp_path / "a.tif")
    assert (abs(as_bytes(picture).astype(int) - (200, 40, 90)) <= 1).all()
    assert picture.icc is None and picture.notes == ("LAB became sRGB",)


def test_a_jpeg_saved_finer_than_95_keeps_its_tables(tmp_path):
    for quality in (80, 99):
        path = tmp_path / f"{quality}.jpg"
        Image.fromarray(smooth()).save(path, quality=quality)
        with Image.open(path) as before, Image.open(resave(path, "out.jpg")) as after:
            assert (sum(after.quantization[0]) == sum(before.quantization[0])) == (quality == 99)
            assert sum(after.quantization[0]) <= 369  # libjpeg's luminance table at quality 95
            assert after.layer[0][1:3] == (1, 1) and after.layer[1][1:3] == (1, 1)  # 4:4:4


@pytest.mark.parametrize("quality", [90, 99])
def test_a_jpeg_may_number_its_tables_as_it_likes(tmp_path, quality):
    Image.fromarray(smooth()[..., 0]).save(tmp_path / "in.jpg", quality=quality)
    data = bytearray((tmp_path / "in.jpg").read_bytes())
    data[data.index(b"\xff\xdb") + 4] = 1  # marker, length, then precision and number of the table
    data[data.index(b"\xff\xc0") + 12] = 1  # the one component's table
    (tmp_path / "in.jpg").write_bytes(data)
    with Image.open(tmp_path / "in.jpg") as before, Image.open(resave(tmp_path / "in.jpg", "out.jpg")) as after:
        assert list(before.quantization) == [1] and after.mode == "L"
        assert (list(after.quantization[0]) == list(before.quantization[1])) == (quality == 99)
        np.testing.assert_allclose(np.asarray(after).astype(int), np.asarray(before).astype(int), atol=3)


def test_lossless_webp_stays_lossless(tmp_path):
    samples = noise(channels=4)
    Image.fromarray(samples).save(tmp_path / "in.webp", lossless=True, exact=True, exif=exif_block())
    with Image.open(resave(tmp_path / "in.webp", "out.webp")) as image:
        np.testing.assert_array_equal(np.asarray(image), samples)


def test_alpha_is_put_on_white_where_the_format_has_none_and_values_are_clipped(tmp_path):
    black = written(tmp_path / "a.bmp", torch.zeros(3, 8, 8), alpha=torch.full((1, 8, 8), 0.2))
    beyond = written(tmp_path / "a.png", torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1))
    with Image.open(black) as one, Image.open(beyond) as other:
        assert one.getpixel((3, 3)) == (204, 204, 204)  # black at 20 % on white
        assert other.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize(
    "rgb",
    [torch.full((3, 8, 8), 200, dtype=torch.uint8), torch.full((3, 8, 8), 200.0), torch.full((3, 8, 8), torch.nan)],
)
def test_what_is_no_picture_is_not_written_as_white_or_black(tmp_path, rgb):
    with pytest.raises(PictureError, match=r"a\.png: cannot be written .*floats in \[0, 1\]"):
        written(tmp_path / "a.png", rgb)
    assert not list(tmp_path.iterdir())


def test_content_rules_over_the_suffix_in_reading(tmp_path):
    samples = noise()
    Image.fromarray(samples).save(tmp_path / "lies.jpg", format="PNG")
    picture = read_picture(tmp_path / "lies.jpg")
    assert picture.format == "png"
    np.testing.assert_array_equal(as_bytes(picture), samples)


def test_format_then_suffix_then_source_decides_what_is_written(tmp_path):
    picture = Picture(rgb=torch.zeros(3, 4, 4), format="webp")
    for name, format, expected in (("a.png", "jpg", "JPEG"), ("b.png", None, "PNG"), ("c.unknown", None, "WEBP")):
        write_picture(tmp_path / name, picture.rgb, picture, format)
        with Image.open(tmp_path / name) as image:
            assert image.format == expected
    write_picture(str(tmp_path / "e.png"), picture.rgb.numpy(), picture)
    assert torch.equal(read_picture(tmp_path / "e.png").rgb, picture.rgb)
    with pytest.raises(PictureError, match=r"'gif'.* png,"):
        write_picture(tmp_path / "d.gif", picture.rgb, picture, "gif")
