"""Archives from strangers: pictures come out with their tree, and what is hostile or damaged is refused in words."""

import io
import os
import stat
import struct
import sys
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image

from mofme.errors import ArchiveError
from mofme.vision import archive
from mofme.vision.archive import extract, pack


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def make_zip(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for entry, content in entries:
            file.writestr(entry, content)
    return path


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def refused(path, match, folder="out"):
    with pytest.raises(ArchiveError, match=match):
        extract(path, path.parent / folder)


def test_only_pictures_come_out_with_their_tree(tmp_path):
    entries = ["a.png", "sub/ü 漢.JPG", "notes.txt", "inner.zip", ".hidden.png", "__MACOSX/._a.png", "sub/.b/c.png"]
    path = make_zip(tmp_path / "x.zip", [(name, png()) for name in [*entries, "sub\\back.png", "aXY.png"]])
    path.write_bytes(path.read_bytes().replace(b"aXY.png", "aü.png".encode()))  # UTF-8 without the flag
    out, expected = tmp_path / "out", ["a.png", "sub/ü 漢.JPG", "sub/back.png", "aü.png"]
    assert names(extract(path, out), out) == expected
    assert sorted(names((file for file in out.rglob("*") if file.is_file()), out)) == sorted(expected)
    assert (out / "a.png").read_bytes() == png()


@pytest.mark.parametrize(
    "name", ["../a.png", "b/../../a.png", "/etc/a.png", "C:\\a.png", "c:a.png", "..\\a.png", "../x.txt"]
)
def test_paths_that_lead_out_refuse_the_whole_archive(tmp_path, name):
    path = make_zip(tmp_path / "x.zip", [("good.png", png()), (name, png())])
    refused(path, r"x\.zip.*a\.png|x\.zip.*x\.txt", "deep/out")
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_links_and_special_files_are_refused(tmp_path, kind):
    entry = zipfile.ZipInfo("link.png")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    refused(make_zip(tmp_path / "x.zip", [(entry, "/etc/passwd")]), r"'link\.png' is a link")


def test_encrypted_archives_are_refused_in_words(tmp_path):
    path = make_zip(tmp_path / "x.zip", [("a.png", png())])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    refused(path, r"'a\.png' is encrypted")


def test_a_bomb_is_refused_by_its_ratio(tmp_path):
    bomb, flat = (  # deflated about 1,000-fold; but a flat picture of a megabyte does compress that well
        make_zip(tmp_path / f"{size}.zip", [("a.png", bytes(size * 2**20))], zipfile.ZIP_DEFLATED) for size in (2, 1)
    )
    refused(bomb, r"'a\.png' expands more than 100-fold")
    assert len(extract(flat, tmp_path / "out")) == 1


def test_too_many_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    entries = [(f"{number}.png", png()) for number in range(4)]
    assert len(extract(make_zip(tmp_path / "three.zip", entries[:3]), tmp_path / "three")) == 3
    refused(make_zip(tmp_path / "four.zip", entries), "4 files; the limit is 3")


def test_an_absurd_table_of_contents_is_not_even_loaded(tmp_path):
    # End record: one entry, whose table claims to be 64 MiB.
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 64 * 2**20, 0, 0)
    with (tmp_path / "x.zip").open("wb") as file:
        file.truncate(64 * 2**20)
        file.seek(0, io.SEEK_END)
        file.write(end)
    refused(tmp_path / "x.zip", "too many files")


def test_total_size_is_limited_by_the_claims_and_by_what_comes_out(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "x.zip", [("a.png", bytes(60)), ("b.png", bytes(60))])
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 119)
    refused(path, "unpacks to more than")
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 120)
    assert len(extract(path, tmp_path / "fits")) == 2
    with zipfile.ZipFile(path) as opened, pytest.raises(ArchiveError, match="unpacks to more than"):
        archive._unpack(opened, opened.infolist()[0], tmp_path / "liar.png", 59)


def test_a_header_that_claims_too_little_is_refused(tmp_path):
    path = make_zip(tmp_path / "x.zip", [("a.png", bytes(5000))], zipfile.ZIP_DEFLATED)
    data = path.read_bytes()
    assert data.count(struct.pack("<L", 5000)) == 2
    path.write_bytes(data.replace(struct.pack("<L", 5000), struct.pack("<L", 50)))
    refused(path, r"x\.zip: cannot be unpacked")
    assert not (tmp_path / "out/a.png").exists()


def test_names_that_differ_by_case_alone_are_kept_apart_for_systems_that_hold_one_of_them(tmp_path):
    names = ["in/a.png", "in/A.png", "In/a.png", "in/a (2).png"]
    path = make_zip(tmp_path / "x.zip", [(name, png()) for name in names])
    unpacked = [found.relative_to(tmp_path / "out").as_posix() for found in extract(path, tmp_path / "out")]
    assert unpacked == ["in/a.png", "in/A (2).png", "In/a (3).png", "in/a (2) (2).png"]


@pytest.mark.parametrize("second", ["a.png", "./a.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_occurs_twice_is_refused(tmp_path, second):
    refused(make_zip(tmp_path / "x.zip", [("a.png", png()), (second, png())]), "occurs twice")


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\3\4 but cut off", None])
def test_what_is_no_zip_or_holds_no_picture(tmp_path, content):
    if content is not None:
        (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip", r"x\.zip: cannot be unpacked \(")
    refused(make_zip(tmp_path / "y.zip", [("notes.txt", "hi")]), "no pictures")


def test_a_zip_that_was_cut_off_is_told_from_what_is_none(tmp_path):
    path = make_zip(tmp_path / "x.zip", [("a.png", png()), ("b.png", png())])
    whole = path.read_bytes()
    for content, why in (
        (whole[:-5], "it is cut off or damaged: .*; fetch it again, or pack it anew"),
        (whole[: len(whole) // 2], "it is cut off or damaged"),
        (b"", "it is empty"),
        (b"<html>", "it is a page of the web, .*: fetch it again"),
        (b"diary", "it is no ZIP archive"),
    ):
        path.write_bytes(content)
        refused(path, rf"x\.zip: cannot be unpacked \({why}")


def test_a_zip_that_lacks_its_beginning_or_middle_is_refused_or_told_of_in_words(tmp_path):
    path = make_zip(tmp_path / "x.zip", [(f"{name}.png", np.random.default_rng(0).bytes(3000)) for name in "abc"])
    whole = path.read_bytes()
    for begin, end in ((0, 2000), (3500, 7000)):
        path.write_bytes(whole[:begin] + whole[end:])
        refused(path, "a part of the archive is missing or damaged; fetch it again, or pack it anew")
        damaged: dict[PurePosixPath, str] = {}
        extract(path, tmp_path / f"out{begin}", damaged=damaged)
        assert set(damaged.values()) == {"cannot be unpacked (a part of the archive is missing or damaged)."}


def test_hidden_pictures_in_a_zip_are_named_but_not_those_of_macos(tmp_path):
    names = ["a.png", ".b.png", "._a.png", "__MACOSX/._a.png", ".DS_Store", ".thumbs/c.png"]
    path = make_zip(tmp_path / "x.zip", [(name, png()) for name in names])
    assert [str(other) for other in archive.others_packed(path, {".png"})] == [".b.png"]
    refused(make_zip(tmp_path / "y.zip", [(".b.png", png())]), r"Left out: 1 file \(\.png\): hidden by the dot")


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("start", [35, 200])  # right behind the local header, and in the midst
def test_damage_of_any_compression_is_an_archive_error(tmp_path, kind, start):
    path = make_zip(tmp_path / "x.zip", [("a.png", np.random.default_rng(0).bytes(3000))], kind)
    data = bytearray(path.read_bytes())
    data[start : start + 50] = b"\xff" * 50
    path.write_bytes(data)
    refused(path, r"x\.zip: cannot be unpacked" + (r".*CRC.*a\.png" if kind == zipfile.ZIP_STORED else ""))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_a_name_that_no_archive_can_hold(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
    with pytest.raises(ArchiveError, match=r"x\.zip: cannot be written"):
        pack(tmp_path / "in", tmp_path / "x.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_existing_file_is_not_replaced(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_text("mine")
    refused(make_zip(tmp_path / "x.zip", [("a.png", png())]), "a.png")
    assert (tmp_path / "out/a.png").read_text() == "mine"


def test_pack_and_extract_are_inverse(tmp_path):
    source = tmp_path / "in"
    for name in ("a.png", "sub/ü.png", "report.csv", ".part"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(png())
    for _ in range(2):  # the old archive is not packed into the new one
        pack(source, source / "all.zip")
    with zipfile.ZipFile(source / "all.zip") as packed:
        assert packed.namelist() == ["a.png", "report.csv", "sub/ü.png"]
        assert {entry.compress_type for entry in packed.infolist()} == {zipfile.ZIP_STORED}
    assert names(extract(source / "all.zip", tmp_path / "out"), tmp_path / "out") == ["a.png", "sub/ü.png"]
    assert (tmp_path / "out/sub/ü.png").read_bytes() == png()
