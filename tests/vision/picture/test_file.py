"""What files carry comes back: pixels, modes, bit depth, formats."""

import struct

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mofme.errors import PictureError
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import find_pictures, read_picture, write_picture
from tests.vision.pictures import as_16_bits, as_bytes, exif_block, noise, png, resave, smooth

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
    like = Picture(rgb=torch.zeros(3, 1, 1), grey=True)
    write_picture(tmp_path / "a.png", torch.tensor([1.0, 0.5, 0.0]).reshape(3, 1, 1), like)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == 151  # 255 * (.299 * 1 + .587 * .5) = 151.09


def test_palette_with_transparency_becomes_rgba(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "in.png", transparency=1)
    with Image.open(resave(tmp_path / "in.png", "out.png")) as out:
        assert [out.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0, 255), (0, 0, 255, 0)]


def test_bilevel_and_palette_without_transparency(tmp_path):
    Image.new("1", (3, 2), 1).save(tmp_path / "bilevel.png")
    assert read_picture(tmp_path / "bilevel.png").grey
    Image.new("P", (3, 2)).save(tmp_path / "palette.png")
    palette = read_picture(tmp_path / "palette.png")
    assert not palette.grey and palette.alpha is None


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
    rgb = torch.zeros(3, 1, 1)
    write_picture(tmp_path / "a.tif", rgb, Picture(rgb=rgb, grey=True, bits=16))
    black_is_zero, white_is_zero = (struct.pack("<HHLHH", 262, 3, 1, value, 0) for value in (1, 0))
    data = (tmp_path / "a.tif").read_bytes()
    assert data.count(black_is_zero) == 1
    (tmp_path / "a.tif").write_bytes(data.replace(black_is_zero, white_is_zero))
    assert read_picture(tmp_path / "a.tif").rgb.flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("target", ["out.png", "out.tif"])
def test_16_bit_grey_with_alpha(tmp_path, target):
    samples = torch.from_numpy(noise(9, 7, 2, np.uint16).astype(np.float32) / 65535)
    grey, alpha = samples[..., 0].expand(3, -1, -1), samples[..., 1][None]
    write_picture(tmp_path / "in.png", grey, Picture(rgb=grey, alpha=alpha, grey=True, bits=16))
    first = read_picture(tmp_path / "in.png")
    assert first.grey
    again = read_picture(resave(tmp_path / "in.png", target))
    assert torch.equal(again.rgb, grey) and torch.equal(again.alpha, alpha) and again.bits == 16


def test_16_bit_grey_png_with_one_clear_grey(tmp_path):
    row, clear = struct.pack(">HHH", 7, 50000, 50001), (b"tRNS", struct.pack(">H", 50000))
    (tmp_path / "in.png").write_bytes(png(16, 0, row, clear))
    for picture in (read_picture(tmp_path / "in.png"), read_picture(resave(tmp_path / "in.png", "out.png"))):
        assert picture.grey and picture.bits == 16
        assert (picture.rgb[1, 0] * 65535).round().tolist() == [7, 50000, 50001]
        assert picture.alpha.flatten().tolist() == [1, 0, 1]


# Three pixels of grey 1, the clear 2 and 3, at the top of their bytes; of 1 bit 1, 0, 1, where 0 is clear.
@pytest.mark.parametrize(
    ("bits", "row", "clear", "greys"),
    [(1, b"\xa0", 0, [255, 0, 255]), (2, b"\x6c", 2, [85, 170, 255]), (4, b"\x12\x30", 2, [17, 34, 51])],
)
def test_grey_png_of_few_bits_with_one_clear_grey(tmp_path, bits, row, clear, greys):
    (tmp_path / "in.png").write_bytes(png(bits, 0, row, (b"tRNS", struct.pack(">H", clear))))
    for picture in (read_picture(tmp_path / "in.png"), read_picture(resave(tmp_path / "in.png", "out.png"))):
        assert picture.grey and (picture.rgb[0, 0] * 255).round().tolist() == greys
        assert picture.alpha.flatten().tolist() == [1, 0, 1]


def test_premultiplied_16_bit_tiff_is_divided_by_its_alpha(tmp_path):
    # 40000 at half alpha is stored as 20000.
    rgb = torch.full((3, 1, 1), 20000 / 65535)
    alpha = torch.full((1, 1, 1), 32768 / 65535)
    write_picture(tmp_path / "in.tif", rgb, Picture(rgb=rgb, alpha=alpha, bits=16))
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


def test_alpha_is_put_on_white_where_the_format_has_none(tmp_path):
    rgb = torch.zeros(3, 8, 8)
    write_picture(tmp_path / "a.bmp", rgb, Picture(rgb=rgb, alpha=torch.full((1, 8, 8), 0.2)))
    with Image.open(tmp_path / "a.bmp") as image:
        assert image.getpixel((3, 3)) == (204, 204, 204)  # black at 20 % on white


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
    with pytest.raises(PictureError, match=r"'gif'.*\.png"):
        write_picture(tmp_path / "d.gif", picture.rgb, picture, "gif")


def test_values_outside_the_range_are_clipped(tmp_path):
    rgb = torch.tensor([-1.0, 0.5, 2.0]).reshape(3, 1, 1)
    write_picture(tmp_path / "a.png", rgb, Picture(rgb=rgb))
    with Image.open(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == (0, 128, 255)


def test_find_pictures_is_sorted_recursive_and_skips_the_hidden(tmp_path):
    for name in ("b.JPG", "a.png", "sub/c.heic", ".hidden.png", ".trash/d.png", "notes.txt", "sub/deep/ü e.TIFF"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    names = [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)]
    assert names == ["a.png", "b.JPG", "sub/c.heic", "sub/deep/ü e.TIFF"]
