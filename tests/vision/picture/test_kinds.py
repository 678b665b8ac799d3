"""Files of other kinds are named for what they are, with what to do, and once for a folder."""

import struct
import zipfile
from pathlib import Path, PurePath

import av
import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ArchiveError
from mofme.vision.archive import extract, others_packed
from mofme.vision.picture.file import READABLE_SUFFIXES, find_pictures, read_picture
from mofme.vision.picture.kinds import left_out, without_lost
from mofme.vision.picture.metadata import png_chunk
from mofme.vision.restorer import Restorer
from tests.films import as_it_is, each_once
from tests.vision.pictures import refused, resave, smooth


@pytest.mark.parametrize("name", ["a.gif", "a.jpg"])  # by its content, whatever it is called
def test_a_gif_is_called_one(tmp_path: Path, name: str) -> None:
    Image.new("P", (4, 4)).save(tmp_path / name, format="GIF")
    refused(tmp_path / name, r"^[^:]*: is a GIF, which has 256 colours: save it as PNG or WebP")


@pytest.mark.parametrize(
    ("name", "tags"), [("a.NEF", {}), ("a.dng", {}), ("a.cr2", {}), ("a.tif", {50706: b"\1\4\0\0"})]
)
def test_the_small_picture_in_a_raw_photograph_is_not_taken_for_it(tmp_path: Path, name: str, tags: dict) -> None:
    Image.new("RGB", (16, 12)).save(tmp_path / name, format="TIFF", tiffinfo=tags)
    refused(tmp_path / name, "is a raw photograph: develop it")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><html><head>", "a page of the web"),
        (b"\0\0\0\x18ftypmp42", "a film: give it the suffix of one"),
        (b"v/1\x01\x02\0\0\0", "a picture of a kind that is not read"),
    ],
)
def test_what_was_given_the_suffix_of_a_picture_is_named(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content + bytes(40))
    refused(tmp_path / "a.jpg", f"is {what}")


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b"\xff\xc1\0\x0b\x0c", "JPEG of 12 bits"),
        (b"\xff\xff\xc3\0\x0b\x10", "JPEG of 16 bits"),  # lossless; markers may begin with more than one FF
        (b"\xff\xf7\0\x0b\x08", "JPEG-LS picture"),
    ],
)
def test_jpegs_that_nothing_here_decodes_are_named(tmp_path: Path, frame: bytes, what: str) -> None:
    comment = b"\xff\xfe\0\x06\xff\xc0\0\x08"  # which holds what looks like a frame
    rest = b"\0\x08\0\x08\x01\x01\x11\0" + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + bytes(99) + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + comment + frame + rest)
    refused(tmp_path / "a.jpg", rf"a\.jpg: is a {what}.*: save it as PNG or TIFF first")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_clipping_paths_are_told(tmp_path: Path, suffix: str) -> None:
    path = b"8BIM" + struct.pack(">H", 2000) + b"\x06Path 1\0" + struct.pack(">L", 26) + bytes(26)
    if suffix == ".jpg":
        segment = b"Photoshop 3.0\0" + path
        more = {"extra": b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment}
    else:
        directory = ImageFileDirectory_v2()
        directory.tagtype[34377], directory[34377] = 1, path
        more = {"tiffinfo": directory}
    Image.fromarray(smooth()).save(tmp_path / f"a{suffix}", **more)
    assert read_picture(tmp_path / f"a{suffix}").notes == ("left out: clipping paths",)


def test_the_command_names_hidden_pictures_but_not_what_systems_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Restorer, "from_pretrained", lambda *_: as_it_is)
    for name in ("a.jpg", ".b.jpg", "._a.jpg", "sub/.c.jpg", ".thumbs/d.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    (tmp_path / "in/.DS_Store").touch()
    code, said = run(tmp_path / "in", tmp_path / "out")
    hidden = "left out: 2 files (.jpg): hidden by the dot that its name begins with, rename it to have it restored"
    assert code == 0 and f"{hidden} 1 restored" in said


def test_names_that_cameras_and_programs_give_pictures_are_read(tmp_path: Path) -> None:
    for name, format in (("a.hif", "HEIF"), ("b.apng", "PNG"), ("c.JPE", "JPEG")):
        Image.new("RGB", (64, 64)).save(tmp_path / name, format=format)
    assert [path.name for path in find_pictures(tmp_path)] == ["a.hif", "b.apng", "c.JPE"]


@pytest.mark.parametrize(("count", "what"), [(1, "another channel"), (2, "2 other channels")])
def test_channels_beside_the_colours_are_told(tmp_path: Path, count: int, what: str) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (6, 8, 3 + count), np.uint8)
    directory = {256: (4, 8), 257: (4, 6), 258: (3, 8), 259: (3, 1), 262: (3, 2), 277: (3, 3 + count), 338: (3, 0)}
    tags = {**directory, 273: (4, 0), 278: (4, 6), 279: (4, samples.nbytes)}
    start, entries, more = 10 + 12 * len(tags), b"", struct.pack("<HHHHH", 8, 8, 8, 8, 8) + bytes(4)
    for tag, (kind, value) in sorted(tags.items()):
        number = {258: 3 + count, 338: count}.get(tag, 1)
        value = {258: start + 4, 273: start + 4 + len(more)}.get(tag, value)
        entries += struct.pack("<HHLL", tag, kind, number, value)
    head = b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + more + samples.tobytes())
    picture = read_picture(tmp_path / "a.tif")
    assert picture.notes == (f"left out: {what}",)
    assert np.array_equal((picture.rgb * 255).round().byte().permute(1, 2, 0), samples[..., :3])


def test_kinds_are_counted_once_with_what_to_do() -> None:
    names = ("a.GIF", "b.gif", "c.cr2", "d.nef", "e.txt", "noend", "a.MPO", "a.xmp", "a.insv")
    assert sorted(left_out(map(PurePath, names)).split("; ")) == [
        "1 file (.insv): a film by another name, rename it to .mp4",
        "1 file (.mpo): a JPEG by another name, rename it to .jpg",
        "1 file (.xmp): edits and captions that belong to a photograph, the results are without them",
        "2 files (.cr2, .nef): a raw photograph, develop it to TIFF or JPEG first, as its camera's program does",
        "2 files (.gif): a GIF, which has 256 colours, save it as PNG or WebP first (animations too) or as a video",
        "2 files (without a suffix, .txt): no pictures or videos",
    ]
    assert left_out([]) == ""


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["restore", *map(str, words)])
    return result.exit_code, " ".join(result.stderr.split())


def test_the_command_tells_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Restorer, "from_pretrained", lambda *_: as_it_is)
    (tmp_path / "in").mkdir()
    Image.new("P", (4, 4)).save(tmp_path / "in/a.gif")
    code, said = run(tmp_path / "in", tmp_path / "out")
    assert code == 2 and "no pictures or videos found. Left out: 1 file (.gif): a GIF" in said
    Image.new("RGB", (4, 4)).save(tmp_path / "in/a.png")
    code, said = run(tmp_path / "in", tmp_path / "in/out")
    assert code == 0 and said.count("left out: 1 file (.gif)") == 1 and "1 restored" in said
    code, said = run(tmp_path / "in/a.gif", tmp_path / "b.png")
    assert code == 1 and "a.gif: is a GIF" in said


def test_archives_tell_of_them(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sub/a.gif", b"GIF89a")
        archive.writestr("__MACOSX/x.txt", b"")
    with pytest.raises(ArchiveError, match=r"holds no pictures\. Left out: 1 file \(\.gif\)"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.write(tmp_path / "b.png", "b.png")
    (path,) = extract(tmp_path / "a.zip", tmp_path / "out")
    assert others_packed(tmp_path / "a.zip", READABLE_SUFFIXES) == [PurePath("sub/a.gif")]
    # Times come along, to the two seconds that a ZIP knows.
    assert abs(path.stat().st_mtime - (tmp_path / "b.png").stat().st_mtime) <= 2


def test_finer_colours_than_a_result_holds_are_told(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 1024, (64, 64, 3), np.uint16) << 6
    pillow_heif.from_bytes("RGB;16", (64, 64), deep.tobytes()).save(tmp_path / "deep.heic")
    with av.open(str(tmp_path / "deep.avif"), "w", format="avif") as file:
        stream = file.add_stream("libsvtav1", 1, {"svtav1-params": "lp=1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        file.mux(stream.encode(av.VideoFrame.from_ndarray((deep >> 8).astype(np.uint8), "rgb24")))
        file.mux(stream.encode(None))
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.heic")
    plain = (tmp_path / "plain.heic").read_bytes()
    at = plain.index(b"colrnclx") + 10
    (tmp_path / "hdr.heic").write_bytes(plain[:at] + b"\0\x10" + plain[at + 2 :])
    told = {path.name: read_picture(path).notes for path in tmp_path.iterdir()}
    assert told.pop("hdr.heic")[0].startswith("HDR colours are written as if")
    assert told == {
        "deep.heic": ("10 bits became 8",),
        "deep.avif": ("10 bits became 8",),
        "print.jpg": ("CMYK became sRGB",),
        "plain.heic": (),
    }


RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"'
CAMERA = 'xmlns:GCamera="http://ns.google.com/photos/1.0/camera/"'
GCONTAINER = "http://ns.google.com/photos/1.0/container/"


def packet(names: str, attributes: str, inside: str = "") -> bytes:
    return (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF {RDF}><rdf:Description rdf:about="" {names} {attributes}>'
        f'<dc:title>Größe</dc:title>{inside}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def directory(semantic: str) -> str:
    return (
        f'<C:Directory xmlns:C="{GCONTAINER}" xmlns:I="{GCONTAINER}item/"><rdf:Seq><rdf:li rdf:parseType="Resource">'
        f'<C:Item I:Semantic="{semantic}" I:Mime="image/jpeg" I:Length="999"/></rdf:li></rdf:Seq></C:Directory>'
    )


ANNOUNCED = {
    "HDR gain map": packet(
        'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"', 'hdrgm:Version="1.0"', directory("GainMap")
    ),
    # Prefixes are anybody's choice.
    "HDR gain map ": packet(
        'xmlns:q="http://ns.apple.com/HDRGainMap/1.0/"', 'q:HDRGainMapVersion="65536"', "<q:Headroom>3</q:Headroom>"
    ),
    "film of a motion photo": packet(
        CAMERA, 'GCamera:MotionPhoto="1" GCamera:MotionPhotoPresentationTimestampUs="7"', directory("MotionPhoto")
    ),
    "film of a motion photo ": packet(CAMERA, 'GCamera:MicroVideo="1" GCamera:MicroVideoOffset="99"'),
    "depth map": packet('xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/"', 'GDepth:Format="RangeInverse"'),
    "long part of its XMP": packet('xmlns:xmpNote="http://ns.adobe.com/xmp/note/"', 'xmpNote:HasExtendedXMP="ABC"'),
}
LIES = b"hdr-gain-map HDRGainMap google MotionPhoto MicroVideo GainMap ExtendedXMP Directory".split()


@each_once("what, suffix", [(what,) for what in ANNOUNCED], [".jpg", ".png", ".webp", ".tif", ".avif", ".heic"])
def test_xmp_announces_nothing_that_is_left_out(tmp_path: Path, what: str, suffix: str) -> None:
    Image.fromarray(smooth()).save(tmp_path / f"a{suffix}", **embedded(suffix, ANNOUNCED[what]))
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.notes == (f"left out: {what.strip()}",)
    again = read_picture(resave(tmp_path / f"a{suffix}", f"b{suffix}"))
    assert again.xmp is not None and "Größe".encode() in again.xmp and again.xmp.startswith(b"<?xpacket begin")
    assert not again.notes and not any(lie in again.xmp for lie in LIES)


def embedded(suffix: str, xmp: bytes) -> dict[str, object]:
    if suffix != ".png":
        return {"tiffinfo": {700: xmp}} if suffix == ".tif" else {"xmp": xmp}
    chunks = PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return {"pnginfo": chunks}


def test_xmp_that_announces_nothing_stays_as_it_is_and_what_no_one_can_read_is_left_out() -> None:
    other = packet('xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"', 'GPano:ProjectionType="equirectangular"')
    assert without_lost(other) == (other, [])
    cleaned, lost = without_lost(packet(CAMERA, 'GCamera:MotionPhoto="1" GCamera:Other="2"'))
    assert b'GCamera:Other="2"' in cleaned and b"xmlns:GCamera" in cleaned and lost == ["film of a motion photo"]
    entity = b'<!DOCTYPE a [<!ENTITY b "c">]><x:xmpmeta a="hdr-gain-map"></x:xmpmeta>'
    for broken in (b"<x:xmpmeta>hdr-gain-map", entity):
        assert without_lost(broken) == (b"", ["XMP, which is damaged"])


def test_a_second_picture_of_a_jpeg_is_told(tmp_path: Path) -> None:
    images = [Image.fromarray(smooth() // (number + 1)) for number in range(2)]
    images[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=images[1:])
    assert read_picture(tmp_path / "a.jpg").notes == ("left out: second picture",)
    assert read_picture(resave(tmp_path / "a.jpg", "b.jpg")).notes == ()


@pytest.mark.parametrize("suffix", [".jpg", ".heic"])
def test_a_film_that_no_xmp_announces_is_told(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(smooth(64, 64)).save(tmp_path / f"a{suffix}")
    film = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\0\0\x0b\xc0mdat" + bytes(range(1, 251)) * 12
    with (tmp_path / f"a{suffix}").open("ab") as file:
        file.write(b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" * (suffix == ".jpg") + film)
    assert read_picture(tmp_path / f"a{suffix}").notes == ("left out: film of a motion photo",)
    assert read_picture(resave(tmp_path / f"a{suffix}", f"b{suffix}")).notes == ()


def test_a_gain_map_after_iso_21496_is_told(tmp_path: Path) -> None:
    segment = b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0"
    extra = b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", extra=extra)
    assert read_picture(tmp_path / "a.jpg").notes == ("left out: HDR gain map",)
    assert b"21496" not in resave(tmp_path / "a.jpg", "b.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".heic"])
def test_sizes_turn_with_the_picture(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[256], exif[257] = 6, 64, 48
    exif[34665] = {0xA002: 64, 0xA003: 48, 0x9286: b"note"}
    xmp = packet(
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"',
        'tiff:ImageWidth="64" tiff:ImageLength="48" tiff:Orientation="6" exif:PixelXDimension="64"',
        "<exif:PixelYDimension>48</exif:PixelYDimension>",
    )
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif.tobytes(), xmp=xmp, dpi=(300, 200))
    with Image.open(resave(tmp_path / "a.jpg", f"b{suffix}")) as image:
        assert image.size == (48, 64)
        found = image.getexif()
        assert (found[256], found[257]) == (48, 64)
        camera = found.get_ifd(34665)
        assert (camera[0xA002], camera[0xA003], camera[0x9286]) == (48, 64, b"note")
        assert found.get(0x0112, 1) == 1
        kept = image.info["xmp"]
        if suffix in (".jpg", ".png"):
            assert image.info["dpi"] == pytest.approx((200, 300), abs=0.02)
    lies = b'ImageWidth="64" ImageLength="48" PixelXDimension="64" PixelYDimension>48 Orientation="6"'.split()
    assert not any(lie in kept for lie in lies)
    assert b'ImageWidth="48"' in kept and b"PixelYDimension>64" in kept


def test_colours_beyond_the_screen_are_kept_of_a_png(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    chunk = png_chunk(b"cICP", bytes([9, 16, 0, 1]))  # Rec. 2100 PQ
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    again = resave(tmp_path / "a.png", "b.png").read_bytes()
    assert 0 < again.index(chunk) < again.index(b"IDAT")
