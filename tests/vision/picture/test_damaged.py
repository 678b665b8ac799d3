"""Files that are broken, too large, of no known kind or out of reach are refused in words, and nothing is lost."""

import errno
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mofme.errors import PictureError, PictureTooLargeError
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import read_picture, write_picture
from tests.vision.pictures import exif_block, noise, png_of, refused, written

pytestmark = pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_damaged_exif_is_dropped_not_fatal(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "in.webp", lossless=True, exif=b"II*\0\xff\xff\0\0")
    assert read_picture(tmp_path / "in.webp").exif is None


def bomb_png(width, height):
    header = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_of((b"IHDR", header), (b"IDAT", zlib.compress(b"\0")))


def test_a_bomb_is_refused_from_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb_png(60_000, 60_000))
    refused(tmp_path / "bomb.png", r"bomb\.png: 60000x60000 is 3600\.0 .* 100: make it smaller", PictureTooLargeError)


def test_pillows_own_limit_neither_clashes_nor_is_lost(tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_picture(tmp_path / "a.png").rgb.shape == (3, 100, 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "a.png")


def test_a_file_over_a_gibibyte_is_refused(tmp_path):
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(2**30 + 1)  # sparse: takes no space
    refused(tmp_path / "big.png", "1 GiB", PictureTooLargeError)


def encoded(path, kind):
    if kind.startswith("16"):
        rgb = torch.rand(3, 80, 60, generator=torch.Generator().manual_seed(0))
        return written(path, rgb, bits=16).read_bytes()
    options = {"lzw.tif": {"compression": "tiff_lzw"}, "progressive.jpg": {"progressive": True}}
    image = Image.fromarray(noise(80, 60))
    image = image.quantize(64) if kind.startswith("palette") else image
    image.save(path, **options.get(kind, {"lossless": True} if kind.startswith("lossless") else {}))
    return path.read_bytes()


ROW_BY_ROW = [".jpg", ".png", "palette.png", "16.png", ".webp", "lossless.webp", ".tif", ".bmp"]
ENCODED = [*ROW_BY_ROW, "progressive.jpg", ".avif", ".heic", "16.tif", "lzw.tif"]
REFUSED = [(kind, 0.02) for kind in ENCODED] + [("lzw.tif", 0.3), ("lzw.tif", 0.9)]  # its index stands at the end


@pytest.mark.parametrize(("kind", "share"), REFUSED)
def test_a_truncated_file_is_refused_where_nothing_useful_is_left(tmp_path, kind, share):
    path = tmp_path / f"a{kind}"
    data = encoded(path, kind)
    path.write_bytes(data[: int(len(data) * share)])
    refused(path, kind)


@pytest.mark.parametrize("kind", ROW_BY_ROW)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.9])
def test_what_is_left_of_a_truncated_file_is_read_and_told(tmp_path, kind, share):
    path = tmp_path / f"a{kind}"
    data = encoded(path, kind)
    whole = read_picture(path)
    assert whole.present is None and not whole.notes
    path.write_bytes(data[: int(len(data) * share)])
    part = read_picture(path)
    rows = part.present[0, :, 0].bool()
    assert part.rgb.shape == whole.rgb.shape and abs(rows.float().mean() - share) < 0.23  # blocks of 16
    apart = (part.rgb - whole.rgb).abs().amax((0, 2))
    assert (apart[rows][:-16] < 0.1).all(), "all but the blocks at the edge is as it was"
    assert part.notes == (f"the file is cut off or damaged: {int((~rows).sum())} of its 80 rows are missing",)


@pytest.mark.parametrize(
    ("kind", "share", "orientation"), [(".avif", 0.9, 1), (".avif", 0.99, 6), (".heic", 0.9, 6), (".heic", 0.99, 1)]
)
def test_the_beginning_of_heic_and_avif_is_kept_as_it_lies(tmp_path, kind, share, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"a{kind}"
    small = Image.fromarray(noise(30, 30)).resize((240, 480), Image.Resampling.BICUBIC)
    small.save(path, quality=80, exif=exif.tobytes())
    whole = read_picture(path).rgb
    assert kind == ".avif" or whole.shape == ((3, 240, 480) if orientation == 6 else (3, 480, 240))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    try:
        part = read_picture(path)
    except PictureError as error:  # of some AVIF files nothing decodes once they are cut
        assert kind == ".avif" and "runcated" in str(error)
        return
    assert part.rgb.shape == whole.shape and 0.7 < part.present.mean() < 1
    assert ((part.rgb - whole).abs() * part.present).mean() < 0.005
    (note,) = part.notes
    assert note.endswith("480 rows are missing") or note.endswith("480 columns are missing")


def test_a_cut_file_that_lies_about_its_size_is_no_bomb(tmp_path):
    data = bytearray(encoded(tmp_path / "a.heic", ".heic"))
    at = data.index(b"mdat") - 4
    data[at : at + 4] = b"\x7f\xff\xff\xff"
    (tmp_path / "a.heic").write_bytes(data[:-20])
    refused(tmp_path / "a.heic", r"a\.heic: damaged or incomplete")


def test_a_cut_interlaced_png_is_refused_by_that_name(tmp_path):
    header = struct.pack(">LLBBBBB", 9, 9, 8, 2, 0, 0, 1)
    (tmp_path / "a.png").write_bytes(png_of((b"IHDR", header), (b"IDAT", zlib.compress(bytes(9)))))
    refused(tmp_path / "a.png", "interlaced and cut off")


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("kind", [".jpg", "progressive.jpg", ".png", "16.png"])
def test_a_file_that_lacks_only_its_end_marker_is_whole(tmp_path, kind, missing):
    path = tmp_path / f"a{kind}"
    data = encoded(path, kind)
    whole = read_picture(path).rgb
    path.write_bytes(data[:-missing])
    part = read_picture(path)
    assert torch.equal(part.rgb, whole) and part.present is None
    assert part.notes in ((), ("the file is cut off or damaged: all its rows are there",))


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".heic"])
def test_zeros_in_place_of_the_rest_are_no_picture(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    data = encoded(path, kind)
    half = data[: len(data) // 2].rstrip(b"\0")
    path.write_bytes(half)
    cut = read_picture(path)
    path.write_bytes(half + bytes(len(data) - len(half)))
    reserved = read_picture(path)
    assert torch.equal(cut.present, reserved.present) and torch.equal(cut.rgb, reserved.rgb)
    assert cut.notes == reserved.notes
    path.write_bytes(data + bytes(1000))  # behind a whole one they mean nothing
    assert read_picture(path).notes == ()


def test_metadata_may_end_in_zeros(tmp_path):
    Image.fromarray(noise(80, 60)).save(tmp_path / "a.webp", exif=b"II*\0\x08\0\0\0\0\0" + bytes(2000))
    picture = read_picture(tmp_path / "a.webp")
    assert picture.notes == () and len(picture.exif) > 2000


def chunks_of(data):
    position = 8
    while position < len(data):
        (length,) = struct.unpack_from(">L", data, position)
        yield data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        position += 12 + length


@pytest.mark.parametrize("broken", [b"IHDR", b"tEXt", b"IEND"])
def test_a_wrong_checksum_beside_the_picture_spoils_nothing(tmp_path, broken):
    data = encoded(tmp_path / "a.png", ".png")
    whole = read_picture(tmp_path / "a.png").rgb
    header, *others = chunks_of(data)
    data = bytearray(png_of(header, (b"tEXt", b"Title\0a hill"), *others))
    at = data.index(broken)
    data[at + 4 + struct.unpack_from(">L", data, at - 4)[0]] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    picture = read_picture(tmp_path / "a.png")
    assert torch.equal(picture.rgb, whole) and picture.present is None
    assert picture.notes in ((), ("the file is cut off or damaged: all its rows are there",))


def test_a_wrong_checksum_of_the_picture_itself_is_told(tmp_path):
    data = encoded(tmp_path / "a.png", ".png")
    whole = read_picture(tmp_path / "a.png").rgb
    header, *others = chunks_of(data)
    packed = b"".join(content for kind, content in others if kind == b"IDAT")
    (tmp_path / "a.png").write_bytes(png_of(header, (b"IDAT", packed[:-4] + b"else"), (b"IEND", b"")))
    picture = read_picture(tmp_path / "a.png")
    assert torch.equal(picture.rgb, whole)
    assert picture.notes == ("the file is cut off or damaged: all its rows are there, but may not all be right",)


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (200_000, 200_000)])
def test_a_damaged_header_that_lies_about_its_size_is_no_bomb(tmp_path, size):
    data = bytearray(bomb_png(*size))
    data[29] ^= 1  # of the header's checksum
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", r"a\.png: damaged or incomplete")


@pytest.mark.parametrize("kind", [".bmp", "lossless.webp"])
def test_much_may_be_missing_of_a_large_file(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    Image.fromarray(noise(300, 260)).save(path, lossless=True)
    for share in (0.3, 0.99):
        data = path.read_bytes()
        (tmp_path / f"b{kind}").write_bytes(data[: int(len(data) * share)])
        assert abs(read_picture(tmp_path / f"b{kind}").present.mean() - share) < 0.1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_why_a_tiff_is_not_read(tmp_path):
    data = encoded(tmp_path / "a.tif", "lzw.tif")
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    refused(tmp_path / "a.tif", "is cut off, and what tells how it is to be read stood behind")
    Image.fromarray(noise(8, 8)).save(tmp_path / "b.tif")
    deep = (tmp_path / "b.tif").read_bytes().replace(struct.pack("<3H", 8, 8, 8), struct.pack("<3H", 32, 32, 32))
    (tmp_path / "b.tif").write_bytes(deep)
    refused(tmp_path / "b.tif", "of a kind that is not read")


def test_half_of_a_progressive_jpeg_is_coarse(tmp_path):
    data = encoded(tmp_path / "a.jpg", "progressive.jpg")
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.present is None and "finer details are missing" in picture.notes[0]


def test_a_drive_that_was_lost_is_no_damage_of_the_picture(tmp_path, monkeypatch):
    def stale(*_):
        raise OSError(errno.ESTALE, "Stale file handle", str(tmp_path / "a.jpg"))

    Image.fromarray(noise()).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Path, "open", stale)
    refused(tmp_path / "a.jpg", r"a\.jpg: the network drive that it lies on was lost")


def test_missing_rows_turn_with_the_picture_and_do_not_count(tmp_path):
    Image.fromarray(noise(80, 60)).save(tmp_path / "a.jpg", exif=exif_block(6))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.rgb.shape == (3, 60, 80)  # turned by a quarter, clockwise: the lowest rows come to lie on the left
    assert not picture.present[0, :, 0].any() and picture.present[0, :, -1].all()
    assert torch.equal(picture.visible, picture.present)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"dear diary, it rained\n" * 9, "not a picture"),
        (b"\xff\xd8\xff\xe0junk" * 9, ""),
        (b"II*\0", ""),
        # A box without a size.
        (
            struct.pack(">L", 24) + b"ftypheic\0\0\0\0mif1heic" + struct.pack(">L4sQ", 1, b"mdat", 0) + b"x" * 99,
            "trunc",
        ),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "x.jpg").write_bytes(content)
    refused(tmp_path / "x.jpg", rf"x\.jpg.*{reason}")
    refused(tmp_path, "is a folder")


@pytest.mark.parametrize("samples", [np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int32)])
def test_32_bit_samples_are_refused_in_words(tmp_path, samples):
    Image.fromarray(samples).save(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "8 or 16 bits")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_an_unreadable_file(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    refused(tmp_path / "a.png", "no permission")


def test_a_failed_write_leaves_the_old_file_and_no_trace(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    mismatched = Picture(rgb=torch.zeros(3, 4, 4), alpha=torch.ones(1, 5, 5))
    with pytest.raises(PictureError, match=r"a\.png.*alpha"):
        write_picture(target, mismatched.rgb, mismatched)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"old"
    with pytest.raises(PictureError, match="cannot be written"):  # a folder's parent is a file
        write_picture(target / "b.png", torch.zeros(3, 4, 4), Picture(rgb=torch.zeros(3, 4, 4)))


def test_a_thumbnail_is_no_pass_of_a_cut_jpeg(tmp_path):
    small = io.BytesIO()
    Image.fromarray(noise(20, 30)).save(small, "JPEG")
    thumbnail = small.getvalue()
    first = struct.pack("<HHHLHHL", 1, 0x112, 3, 1, 1, 0, 26)
    second = struct.pack("<HHHLL", 2, 0x201, 4, 1, 56) + struct.pack("<HHLLL", 0x202, 4, 1, len(thumbnail), 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<L", 8) + first + second + thumbnail
    Image.fromarray(noise(400, 300)).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.present is not None and "rows are missing" in picture.notes[0]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_what_is_there_of_a_turned_tiff_lies_as_in_the_whole(tmp_path, orientation):
    path = tmp_path / "a.tif"
    Image.fromarray(noise(60, 80)).save(path, tiffinfo={0x112: orientation})
    whole, data = read_picture(path).rgb, path.read_bytes()
    path.write_bytes(data[: 200 + (len(data) - 200) // 2])
    part = read_picture(path)
    assert part.rgb.shape == whole.shape and abs(part.present.mean() - 0.5) < 0.05
    assert not ((part.rgb - whole).abs() * part.present).any()
