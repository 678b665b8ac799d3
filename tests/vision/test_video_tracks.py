"""What a video holds beside its pictures goes along: sound, subtitles, chapters, a cover, fonts; or is told of."""

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import AttachmentStream, Disposition
from av.subtitles.subtitle import SubtitleSet

from mofme.errors import PictureError
from mofme.vision.batch import restore_file
from mofme.vision.report import FileReport
from mofme.vision.video import restore_video
from mofme.vision.video_container import missing_share
from mofme.vision.video_file import planes_of, read_video
from tests.films import as_it_is, copied, each_once, film, frames_in, images, play, written

DEFAULT, FORCED, COMMENT, PICTURE = (
    Disposition.default,
    Disposition.forced,
    Disposition.comment,
    Disposition.attached_pic,
)
# As FFmpeg gives subtitles that have no styles of their own.
HEADER = (
    b"[Script Info]\nScriptType: v4.00+\nPlayResX: 384\nPlayResY: 288\n\n[V4+ Styles]\n"
    b"Format: Name, Fontname, Fontsize, "
    b"PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, "
    b"Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding\n"
    b"Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n[Events]\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
)
CHAPTERS = [("Regn", 0, 400), ("Opphold", 400, 800)]


def restored(source: Path, output: Path) -> FileReport:
    report = restore_file(as_it_is, source, output)
    assert report.error == ""
    return report


def named(stream, language: str, title: str, disposition: Disposition):
    stream.metadata.update({"language": language, "title": title})
    stream.disposition = disposition
    return stream


def say(container, stream, words: str, at: int, until: int) -> None:
    line = SubtitleSet.create(f"0,0,Default,,0,0,0,,{words}".encode(), 0, until - at)
    packet = stream.codec_context.encode_subtitle(line)
    packet.pts = packet.dts = at
    packet.duration, packet.time_base, packet.stream = until - at, Fraction(1, 1000), stream
    container.mux(packet)


def add_cover(container):
    picture = container.add_stream("mjpeg", 1)
    picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
    picture.disposition = PICTURE
    return picture


def paint(container, picture) -> None:
    frame = av.VideoFrame(32, 32, "yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1)
    container.mux([*picture.encode(frame), *picture.encode(None)])


def whole(path: Path, sound="aac", words: str | None = "mov_text", cover=False, font=False) -> Path:
    """Eight frames, two sound tracks, two of subtitles, two chapters."""

    def begin(container, video) -> Iterator[Callable[[], None]]:
        chapters = [
            {"id": n, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
            for n, (title, start, end) in enumerate(CHAPTERS, 1)
        ]
        container.set_chapters(chapters)
        named(video, "nor", "Hovedbildet", DEFAULT)
        for layout, *about in (("mono", "nor", "Original", DEFAULT), ("stereo", "jpn", "Kommentar", COMMENT)):
            yield partial(play, container, named(container.add_stream(sound, 48_000, layout=layout), *about))
        told = [("Il pleut", "fra", "Sous-titres", FORCED), ("إنها تمطر", "ara", "ترجمة", Disposition(0))]
        for said, *about in told if words else []:
            stream = named(container.add_stream(words), *about)
            stream.codec_context.time_base, stream.codec_context.subtitle_header = Fraction(1, 1000), HEADER
            yield partial(say, container, stream, said, 100, 500)
        if cover:
            yield partial(paint, container, add_cover(container))
        if font:
            container.add_attachment("letters.ttf", "application/x-truetype-font", b"\0\1\0\0 letters")

    plain = film(path.with_name(f"plain-{path.stem}.mp4"))
    return copied(plain, path, lambda *of: list(begin(*of)))


def with_sound(path: Path, codec: str, layout: str, language: str) -> Path:
    def begin(container, _) -> list[Callable[[], None]]:
        stream = named(container.add_stream(codec, 48_000, layout=layout), language, "Title", DEFAULT)
        return [partial(play, container, stream)]

    return copied(film(path.with_name("plain.mp4")), path, begin)


def said_in(container, stream) -> list[str]:
    packets = (packet for packet in container.demux(stream) if packet.size)
    return [words.dialogue.decode() for packet in packets for words in packet.decode()]


@each_once(
    "source, sound, words, suffix",
    [
        ("a.mp4", "aac", "mov_text"),
        ("a.mov", "pcm_s16le", "mov_text"),
        ("a.mkv", "aac", "subrip"),
        ("a.mkv", "libmp3lame", "ass"),
        ("a.mkv", "libopus", "webvtt"),
    ],
    [".mp4", ".m4v", ".mov", ".mkv", ".webm"],
)
def test_tracks_keep_language_title_and_place(tmp_path, source, sound, words, suffix):
    report = restored(whole(tmp_path / source, sound, words), tmp_path / f"b{suffix}")
    assert report.note == ""
    with av.open(tmp_path / f"b{suffix}") as container:
        for kind, expected in {
            "audio": [("nor", "Original"), ("jpn", "Kommentar")],
            "subtitle": [("fra", "Sous-titres"), ("ara", "ترجمة")],
        }.items():
            streams = list(getattr(container.streams, kind if kind == "audio" else "subtitles"))
            languages = [stream.metadata.get("language") for stream in streams]
            assert languages == [language for language, _ in expected]
            if suffix != ".mov":  # QuickTime's tracks have no titles
                titles = [stream.metadata.get("title", stream.metadata.get("name")) for stream in streams]
                assert titles == [title for _, title in expected]
        first, second = container.streams.audio
        assert (first.layout.nb_channels, second.layout.nb_channels) == (1, 2)
        assert first.disposition & DEFAULT and not second.disposition & DEFAULT
        if suffix == ".mkv" and not source.endswith(".mov"):  # QuickTime has no such places
            assert second.disposition & COMMENT and container.streams.subtitles[0].disposition & FORCED
        chapters = container.chapters()
        found = [(c["metadata"]["title"], round(c["start"] * c["time_base"], 2)) for c in chapters]
        assert found == [("Regn", 0), ("Opphold", Fraction(4, 10))]
        assert container.streams.video[0].metadata.get("language") == "nor"
    for index, spoken in enumerate(("Il pleut", "إنها تمطر")):
        with av.open(tmp_path / f"b{suffix}") as container:
            assert said_in(container, container.streams.subtitles[index]) == [spoken]


def test_sound_is_copied_where_it_can_be_and_keeps_its_channels_where_not(tmp_path):
    restored(whole(tmp_path / "a.mkv", "libmp3lame", None), tmp_path / "b.mp4")
    with av.open(tmp_path / "b.mp4") as container:
        assert {stream.codec_context.codec.canonical_name for stream in container.streams.audio} == {"mp3"}
    source = with_sound(tmp_path / "c.mkv", "pcm_s16le", "5.1", "eng")
    for suffix in (".mp4", ".webm"):
        restored(source, tmp_path / f"c{suffix}")
        with av.open(tmp_path / f"c{suffix}") as container:
            assert container.streams.audio[0].layout.nb_channels == 6


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_cover_goes_along_and_is_not_the_video(tmp_path, suffix):
    source = whole(tmp_path / "a.mp4", cover=True)
    report = restored(source, tmp_path / f"b{suffix}")
    assert (report.width, report.height) == (64, 48)
    with av.open(tmp_path / f"b{suffix}") as container:
        [cover] = [stream for stream in container.streams.video if stream.disposition & PICTURE]
        assert cover.codec_context.width == 32
    assert "attached is left out" in restored(source, tmp_path / "b.mov").note


def test_a_language_that_quicktime_has_no_code_for_is_told(tmp_path):
    source = with_sound(tmp_path / "a.mkv", "aac", "mono", "gle")
    assert "lost its language, gle" in restored(source, tmp_path / "b.mov").note
    assert restored(source, tmp_path / "b.mp4").note == ""


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_a_time_code_goes_along_and_is_not_told_as_lost(tmp_path, suffix):
    source = copied(
        film(tmp_path / "plain.mp4"), tmp_path / "a.mov", lambda _, video: video.metadata.update(timecode="01:02:03:04")
    )
    with av.open(source) as coded:
        assert len(coded.streams.data) == 1
    assert restored(source, tmp_path / f"b{suffix}").note == ""
    with av.open(tmp_path / f"b{suffix}") as container:
        assert any(value.startswith("01:02:03:") for value in container.streams.video[0].metadata.values())


def test_a_second_camera_is_told(tmp_path):
    plain = film(tmp_path / "plain.mp4")

    def second(container, _) -> list[Callable[[], None]]:
        with av.open(plain) as again:
            stream = container.add_stream_from_template(again.streams.video[0])
            packets = [packet for packet in again.demux(video=0) if packet.size]
        for packet in packets:
            packet.stream = stream
        return [partial(container.mux, packets)]

    assert restored(copied(plain, tmp_path / "a.mkv", second), tmp_path / "b.mp4").note.startswith(
        "another video in it"
    )
    assert restored(plain, tmp_path / "c.mp4").note == ""


def test_a_cover_alone_is_no_video(tmp_path):
    with av.open(tmp_path / "song.mp4", "w") as container:
        sound = named(container.add_stream("aac", 48_000, layout="mono"), "eng", "Song", DEFAULT)
        picture = add_cover(container)
        play(container, sound)
        paint(container, picture)
    assert "there is no video in this file" in restore_file(as_it_is, tmp_path / "song.mp4", tmp_path / "b.mp4").error


def test_fonts_go_along_or_are_told_of(tmp_path):
    source = whole(tmp_path / "a.mkv", words="ass", font=True)
    assert restored(source, tmp_path / "b.mkv").note == ""
    with av.open(tmp_path / "b.mkv") as container:
        [font] = [stream for stream in container.streams if isinstance(stream, AttachmentStream)]
        assert font.data == b"\0\1\0\0 letters" and font.metadata["filename"] == "letters.ttf"
    assert "attached is left out" in restored(source, tmp_path / "b.mp4").note


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mkv", "libx264"), (".webm", "libvpx-vp9"), (".mp4", "libx264"), (".avi", "mpeg4"), (".wmv", "wmv2")],
)
def test_a_film_that_is_cut_off_is_told(tmp_path, suffix, codec):
    whole = film(tmp_path / f"whole{suffix}", frames=40, size=(128, 96), codec=codec)
    if suffix == ".mp4":  # with its table in front
        whole = copied(whole, tmp_path / "a.mp4", movflags="faststart")
    with whole.open("ab") as file:  # as cameras do behind a film
        file.write(b"\x7f\xff\xff\xff\x00\x01\x02\x03 a trailer" * (suffix == ".mp4"))
    assert missing_share(whole) == 0
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.8)])
    assert missing_share(cut) == pytest.approx(0.2, abs=0.01)
    frames = list(restore_video(as_it_is, cut, tmp_path / "clear.mp4"))
    assert 0 < frames[-1].number < 40
    assert "the file is cut off: 20% of it is missing" in frames[-1].notes[0]


def test_an_avi_that_never_learnt_its_length_is_not_said_to_be_cut_off(tmp_path):
    path = film(tmp_path / "a.avi", codec="mpeg4")
    path.write_bytes(b"RIFF\xff\xff\xff\xff" + path.read_bytes()[8:])
    assert restore_file(as_it_is, path, tmp_path / "b.mp4").note == ""


def test_a_film_whose_table_is_cut_off_is_refused_by_that(tmp_path):
    path = film(tmp_path / "a.mp4", frames=20)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 50])
    with pytest.raises(PictureError, match=r"a\.mp4: .*is cut off, and w"), read_video(path):
        pass


@pytest.mark.parametrize(
    ("kind", "is_told"), [("yuv444p", True), ("yuv422p", True), ("yuv420p", False), ("gray", False)]
)
def test_colours_that_get_coarser_are_told(tmp_path, kind, is_told):
    written(tmp_path / "a.mkv", "ffv1", kind, [av.VideoFrame(65, 47, kind)])
    (frame,) = restore_video(as_it_is, tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert any("4:2:0" in note for note in frame.notes) == is_told


def box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def with_boxes(source: Path, target: Path, more: bytes) -> Path:
    """Boxes behind all others of the film's own; its table is the last thing in the file."""
    data = bytearray(source.read_bytes())
    entry = data.rindex(b"avc1") - 4
    at = entry + int.from_bytes(data[entry : entry + 4], "big")
    data[at:at] = more
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        start = data.rindex(name, 0, entry + 8) - 4
        size = int.from_bytes(data[start : start + 4], "big") + len(more)
        data[start : start + 4] = size.to_bytes(4, "big")
    target.write_bytes(data)
    return target


def test_a_view_all_around_in_3d_is_told_to_be_none_any_more(tmp_path):
    around = box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20)))
    boxes = box(b"st3d", b"\0\0\0\0\2") + box(b"sv3d", box(b"svhd", b"\0\0\0\0by\0") + around)
    source = with_boxes(film(tmp_path / "plain.mp4"), tmp_path / "a.mp4", boxes)
    note = restore_file(as_it_is, source, tmp_path / "b.mp4").note
    assert note.count("360 degrees") == note.count("in 3D") == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_players_hide_is_not_in_the_result(tmp_path, suffix):
    # 48 x 40 of 64 x 48, its middle moved right by 2: 8 + 2 columns go at the left, 8 - 2 at the right, 4 rows each.
    clap = box(b"clap", struct.pack(">8I", 48, 1, 40, 1, 2, 1, 0, 1))
    source = with_boxes(film(tmp_path / "plain.mp4"), tmp_path / "a.mp4", clap)
    if suffix != ".mp4":
        source = copied(source, tmp_path / f"a{suffix}")
    restored(source, tmp_path / "b.mp4")
    shown, whole = images(source), images(tmp_path / "plain.mp4")
    assert shown.shape == images(tmp_path / "b.mp4").shape == (8, 3, 40, 48)
    assert (shown - whole[:, :, 4:44, 10:58])[:, :, 2:-2, 2:-2].abs().max() == 0  # chroma is smoothed at edges


def test_an_odd_column_that_shares_its_chroma_stays():
    frame = av.VideoFrame(8, 6, "yuv420p")
    planes = planes_of(frame, hidden=(1, 2, 3, 0))
    assert planes.luma_HW.shape == (6 - 1 - 2, 8 - 2)  # of 3 columns at the left 2 go
    assert planes.chroma_2HW.shape == (2, 2, 3)


@pytest.mark.parametrize(("codec", "format"), [("libx264", "h264"), ("libx265", "hevc")])
def test_a_second_view_is_told_to_be_left_out(tmp_path, codec, format):
    def seen_by_both(packet: av.Packet) -> av.Packet:
        # A unit as of the other eye: of kind 20 in H.264, of layer 1 in HEVC.
        other = b"\x74\x80\x80" if format == "h264" else b"\x02\x09\x80\x80"
        new = av.Packet(bytes(packet) + len(other).to_bytes(4, "big") + other)
        new.pts, new.dts, new.time_base, new.is_keyframe = packet.pts, packet.dts, packet.time_base, packet.is_keyframe
        return new

    plain = film(tmp_path / "plain.mp4", size=(96, 48), codec=codec)
    source = copied(plain, tmp_path / "a.mp4", change=seen_by_both)
    assert restore_file(as_it_is, source, tmp_path / "b.mp4").note == "its second view, for the other eye, is left out"
    assert restore_file(as_it_is, plain, tmp_path / "c.mp4").note == ""


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "libx264"), (".webm", "libvpx-vp9"), (".wmv", "wmv2"), (".ts", "libx264")]
)
def test_frames_that_are_lost_inside_a_file_are_counted_by_their_times(tmp_path, suffix, codec):
    whole = film(tmp_path / f"whole{suffix}", frames=40, codec=codec)
    numbers = iter(range(40))
    with av.open(whole) as source, av.open(tmp_path / f"a{suffix}", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and next(numbers) not in (20, 21, 22):
                packet.stream = stream
                target.mux(packet)
    assert restore_file(as_it_is, whole, tmp_path / "whole.mp4").note == ""
    with read_video(tmp_path / f"a{suffix}") as video:
        missing = 40 - len(list(video.decoded()))
        assert missing >= 3 and f"by the times of the others {missing} frames are missing in the file" in video.notes


def test_of_uneven_times_nothing_is_told_to_be_missing(tmp_path):
    film(tmp_path / "a.mkv", times=[0, 1, 3, 4, 7, 8, 10, 11])
    assert restore_file(as_it_is, tmp_path / "a.mkv", tmp_path / "b.mp4").note == ""


def test_a_wmv_that_tells_no_rate_counts_no_frame_for_each_millisecond(tmp_path):
    with read_video(film(tmp_path / "a.wmv", frames=1, codec="wmv2")) as video:
        assert (video.rate, video.frames) == (25, 2)  # 0.1 seconds of the usual rate
    restored(tmp_path / "a.wmv", tmp_path / "b.mp4")
    with av.open(tmp_path / "b.mp4") as container:
        assert container.duration == 40_000  # microseconds


def test_damaged_frames_are_told(tmp_path):
    def damaged(packet: av.Packet) -> av.Packet:
        if not packet.is_keyframe:
            return packet
        data = bytearray(bytes(packet))
        data[-100:-50] = b"\xff" * 50  # in the last rows
        new = av.Packet(bytes(data))
        new.pts, new.dts, new.time_base, new.is_keyframe = packet.pts, packet.dts, packet.time_base, True
        return new

    source = copied(film(tmp_path / "whole.mkv", frames=20, size=(128, 96)), tmp_path / "a.mkv", change=damaged)
    assert "1 frame is damaged in the file" in restore_file(as_it_is, source, tmp_path / "b.mkv").note


def test_pictures_that_end_before_the_file_are_told(tmp_path):
    source = film(tmp_path / "a.mkv", frames=20)
    lengths = struct.pack(">d", 2000.0), struct.pack(">d", 4000.0)  # milliseconds
    source.write_bytes(source.read_bytes().replace(*lengths))
    assert restore_file(as_it_is, source, tmp_path / "b.mkv").note == "its pictures end after 2.0 of 4.0 seconds"


def test_subtitles_within_the_pictures_are_told_to_be_lost(tmp_path):
    def captioned(packet: av.Packet) -> av.Packet:
        words = b"\xb5\x00\x31GA94\x03\x41\xff\xfc\x94\x2c\xff"
        told = b"\x06\x04" + bytes([len(words)]) + words + b"\x80"
        new = av.Packet(len(told).to_bytes(4, "big") + told + bytes(packet))
        new.pts, new.dts, new.time_base, new.is_keyframe = packet.pts, packet.dts, packet.time_base, packet.is_keyframe
        return new

    source = copied(film(tmp_path / "plain.mp4"), tmp_path / "a.mp4", change=captioned)
    assert restore_file(as_it_is, source, tmp_path / "b.mp4").note.count("closed captions") == 1


def test_a_size_that_changes_on_the_way_is_told(tmp_path):
    parts = [film(tmp_path / f"{number}.ts", size=size) for number, size in enumerate([(96, 48), (64, 96)])]
    (tmp_path / "two.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert "its size changes" in restore_file(as_it_is, tmp_path / "two.ts", tmp_path / "b.mp4").note
    assert restore_file(as_it_is, film(tmp_path / "odd.mkv", size=(96, 48)), tmp_path / "c.webm").note == ""


def test_a_title_in_other_letters_and_sound_of_any_rate_stop_nothing(tmp_path):
    def begin(container, _) -> list[Callable[[], None]]:
        container.metadata["title"] = "MARKERMARKER"
        tone = container.add_stream("pcm_u8", 11_024, layout="mono")
        heard = av.AudioFrame.from_ndarray(np.full((1, 3000), 128, np.uint8), "u8", "mono")
        heard.rate, heard.pts = 11_024, 0
        return [lambda: container.mux([*tone.encode(heard), *tone.encode(None)])]

    blank = [av.VideoFrame(64, 48, "yuvj420p") for _ in range(4)]
    source = written(tmp_path / "a.avi", "mjpeg", "yuvj420p", blank, begin=begin)
    source.write_bytes(source.read_bytes().replace(b"MARKERMARKER", b"M\xfcnchen 2009"))
    restored(source, tmp_path / "b.mp4")
    with av.open(tmp_path / "b.mp4") as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_a_recording_that_begins_late_begins_at_once_with_its_chapters(tmp_path):
    late = film(tmp_path / "late.mkv", 8, times=list(range(36_000, 36_008)))  # an hour, at 10 a second
    chapter = {"id": 1, "start": 3_600_000, "end": 3_600_400, "time_base": Fraction(1, 1000), "metadata": {}}
    source = copied(late, tmp_path / "a.mkv", lambda to, _: to.set_chapters([chapter]))
    for suffix in (".mp4", ".mkv"):
        restored(source, tmp_path / f"b{suffix}")
        with av.open(tmp_path / f"b{suffix}") as container:
            assert container.streams.video[0].start_time == container.chapters()[0]["start"] == 0
            assert container.duration <= 2 * av.time_base


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_sound_of_an_unknown_kind_is_told(tmp_path, suffix):
    source = film(tmp_path / "a.mp4", frames=4, sound="aac")
    data = source.read_bytes()
    at = data.rfind(b"mp4a")
    source.write_bytes(data[:at] + data[at:].replace(b"mp4a", b"apac", 1).replace(b"esds", b"dapa", 1))
    *_, last = restore_video(as_it_is, source, tmp_path / f"b{suffix}")
    assert "a track of sound of a kind that is not known is left out" in last.notes


@pytest.mark.parametrize(("sound", "suffix"), [(None, ".mp4"), ("mp2", ".mp4"), ("mp2", ".mkv")])
def test_joined_recordings_go_on_one_behind_the_other(tmp_path, sound, suffix):
    part = film(tmp_path / "a.ts", frames=20, sound=sound, size=(128, 48))
    (tmp_path / "two.ts").write_bytes(part.read_bytes() * 2)
    restored(tmp_path / "two.ts", tmp_path / f"b{suffix}")
    times = [frame.time for frame in frames_in(tmp_path / f"b{suffix}")]
    assert [round(later - one, 1) for one, later in pairwise(times)] == [0.1] * 39


def test_sound_that_changes_its_channels_goes_along(tmp_path):
    """As between a broadcast and what is advertised in it."""

    def begin(container, _) -> list[Callable[[], object]]:
        return [partial(play, container, container.add_stream("mp2", 48_000, layout="stereo"))]

    mono = film(tmp_path / "mono.ts", sound="mp2", size=(128, 48))
    stereo = copied(film(tmp_path / "a.mp4", size=(128, 48)), tmp_path / "stereo.ts", begin)
    (tmp_path / "two.ts").write_bytes(mono.read_bytes() + stereo.read_bytes())
    restored(tmp_path / "two.ts", tmp_path / "b.webm")
    with av.open(tmp_path / "b.webm") as container:
        heard = list(container.decode(audio=0))
    assert heard[-1].time == pytest.approx(1.6, abs=0.05)
    assert all(np.abs(frame.to_ndarray()).max() > 0.1 for frame in heard[1:-2])


def test_a_clock_that_runs_over_squeezes_nothing(tmp_path):
    restored(film(tmp_path / "a.ts", 8, times=list(range(954_420, 954_428))), tmp_path / "b.mp4")
    assert [round(frame.time, 1) for frame in frames_in(tmp_path / "b.mp4")] == [number / 10 for number in range(8)]


@pytest.mark.parametrize(
    ("degrees", "flip", "corner"),
    [(0, {"hflip": True}, (0, -1)), (0, {"vflip": True}, (-1, 0)), (90, {"hflip": True}, (-1, -1))],
)
def test_a_mirrored_video_comes_out_as_players_show_it(tmp_path, degrees, flip, corner):
    spot = np.zeros((48, 64, 3), np.uint8)
    spot[:16, :16] = 255
    frame = av.VideoFrame.from_ndarray(spot, "rgb24").reformat(format="yuv420p")

    def turn(_, video) -> None:
        video.set_display_rotation(degrees, **flip)

    shown = images(written(tmp_path / "a.mp4", "libx264", "yuv420p", [frame], begin=turn))[0]
    assert shown[:, corner[0], corner[1]].mean() > 0.5
