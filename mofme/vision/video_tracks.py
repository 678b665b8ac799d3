"""What a video holds beside its pictures: sound, subtitles, chapters, a cover, fonts. All that the new file can hold.

Each track keeps its language, title and place among the others; what cannot go along is noted.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.subtitles.stream import SubtitleStream

# Subtitles that are text, and what they become where the new file cannot hold their kind.
_TEXT = {"mov_text", "subrip", "ass", "ssa", "webvtt", "text"}
_TEXT_OF = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
JUMP = 0.5  # seconds back, by which a clock began anew
_AAC_RATES = {96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350}
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # by channels
# QuickTime knows some languages by older codes only.
_QUICKTIME = {
    **{"deu": "ger", "nld": "dut", "swe": "sve", "nob": "nor", "nno": "nor", "ell": "gre", "isl": "ice", "zho": "chi"},
    **{"fre": "fra", "rum": "ron", "cze": "ces", "slo": "slk", "sqi": "alb", "hye": "arm", "kat": "geo", "mya": "bur"},
    **{"msa": "may", "cym": "wel", "eus": "baq"},
}
_COVERS = {"mjpeg": "jpeg", "png": "png"}
# They describe the file that was read, not the one that is written.
_OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_OWN_TRACK = ("handler_name", "vendor_id", "encoder", "duration", "bps", "number_of", "_statistics", "rotate", "alpha_")


def start_of(source: InputContainer) -> Fraction:
    """The second at which a file begins. A recording of TV begins at any time, up to which an MP4 would show nothing,
    or before 0 where its clock runs over; sound may begin a little before the pictures do.
    """
    start = Fraction(source.start_time or 0, av.time_base)
    return start if start > 0 or start < -1 else Fraction(0)


def describe(target: Any, source: Any) -> None:
    """Give a track of the new file the language, title and disposition of one of the old."""
    kept = {key: value for key, value in source.metadata.items() if not key.lower().startswith(_OWN_TRACK)}
    if "name" in kept:  # so MP4's titles are read
        kept.setdefault("title", kept.pop("name"))
    if target.container.format.name == "mov" and "language" in kept:
        kept["language"] = _QUICKTIME.get(kept["language"], kept["language"])
    target.metadata.update(kept)
    target.disposition = source.disposition


def languages(container: Any) -> Counter[str]:
    """How many of its tracks are in which language, by its code."""
    codes = Counter(stream.metadata.get("language", "und") for stream in container.streams)
    del codes["und"]
    return codes


class Tracks:
    """Copies all of `source` but its pictures into `target`, or encodes it anew; `note` is told what is left out."""

    def __init__(self, source: InputContainer, target: OutputContainer, note: Callable[[str], None]) -> None:
        self._target, self._note = target, note
        self.start = start_of(source)
        self._written: dict[int, tuple[int, int]] = {}  # by track, time and length of the packet before
        self._shifts = Counter[int]()
        self._write: dict[int, Callable[[Any], None]] = {}
        self._ends: list[Callable[[], None]] = []
        target.metadata.update({key: value for key, value in source.metadata.items() if key not in _OWN_METADATA})
        if chapters := source.chapters():
            for chapter in chapters:
                if base := chapter["time_base"]:
                    begun = int(self.start // base)
                    chapter["start"], chapter["end"] = (max(chapter[end] - begun, 0) for end in ("start", "end"))
            target.set_chapters(chapters)
        followed: list[Stream] = []
        for stream in source.streams:
            if (write := self._added(stream)) is not None:
                self._write[stream.index] = write
                followed.append(stream)
        # In MP4 chapters are a track of data, too, and time codes, which the video's own metadata tell as well.
        data = [stream for stream in source.streams if stream.type == "data" and "timecode" not in stream.metadata]
        if len(data) > bool(chapters):
            note("a track of data, such as places or speeds, is left out")
        self._packets: Iterator[Packet[Any]] = source.demux(followed) if followed else iter(())
        self._next = self._following()

    def _following(self) -> "Packet[Any] | None":
        """The next packet. Where parts were joined whose clocks begin anew, it comes behind the one before."""
        packet = next(self._packets, None)
        if packet is None or packet.dts is None or not packet.time_base:
            return packet
        index, dts = packet.stream.index, packet.dts + self._shifts[packet.stream.index]
        if index in self._written:
            last, length = self._written[index]
            if dts < last - JUMP / packet.time_base:
                self._shifts[index] += last + length - dts
                dts = last + length
            dts = max(dts, last + 1)  # times must rise
        if packet.pts is not None:
            packet.pts = max(packet.pts + self._shifts[index], dts)
        packet.dts, self._written[index] = dts, (dts, packet.duration or 0)
        return packet

    def copy(self, until: Fraction | None = None) -> None:
        """Copy what begins up to this second of the video, or all that is left."""
        while (packet := self._next) is not None:
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            if packet.time_base:
                begun = int(self.start // packet.time_base)
                packet.pts, packet.dts = (one if one is None else one - begun for one in (packet.pts, packet.dts))
            self._write[packet.stream.index](packet)
            self._next = self._following()

    def finish(self) -> None:
        """Write what encoders hold back."""
        for end in self._ends:
            end()

    def _added(self, stream: Stream) -> Callable[[Any], None] | None:
        """What writes the packets of this track, if it goes along and has any."""
        kind = stream.codec_context.codec.canonical_name if stream.codec_context else ""
        is_cover = bool(stream.disposition & Disposition.attached_pic)
        format = self._target.format.name
        if isinstance(stream, AudioStream):
            if stream.codec_context is None:
                self._note("a track of sound of a kind that is not known is left out")
                return None
            return self._copied(stream) if _holds(self._target, stream) else self._sound(stream)
        if isinstance(stream, SubtitleStream):
            if _holds(self._target, stream):
                return self._copied(stream)
            if kind in _TEXT:
                return self._subtitles(stream, _TEXT_OF[format])
            self._note(f"subtitles of the kind {kind or 'unknown'} are left out: this kind of file holds none such")
        elif isinstance(stream, AttachmentStream) and format == "matroska":
            self._target.add_stream_from_template(stream)
        elif is_cover and kind in _COVERS and format in ("mp4", "matroska"):
            return self._cover(stream, _COVERS[kind])
        elif is_cover or isinstance(stream, AttachmentStream):
            self._note("a picture or font that was attached is left out: this kind of file holds none")
        elif stream.type == "video" and stream is not stream.container.streams.best("video"):
            self._note("another video in it, a second camera's say, is left out: bring it into a file of its own")
        return None

    def _copied(self, stream: Any) -> Callable[[Any], None]:
        copy = self._target.add_stream_from_template(stream)
        describe(copy, stream)

        def write(packet: Any) -> None:
            if packet.size:  # the last one is empty
                packet.stream = copy
                self._target.mux(packet)

        return write

    def _sound(self, stream: AudioStream) -> Callable[[Any], None]:
        encoder = "libopus" if self._target.format.name == "webm" else "aac"
        rate = stream.rate if encoder == "aac" and stream.rate in _AAC_RATES else 48_000
        new = cast(AudioStream, self._target.add_stream(encoder, rate, layout=_LAYOUTS.get(stream.channels, "stereo")))
        describe(new, stream)
        kind, even = None, av.AudioResampler()

        def encode(frame: Any) -> None:
            nonlocal kind, even
            found = frame and (frame.format.name, frame.layout.name, frame.sample_rate)
            if found != kind:  # a broadcast goes from stereo to 5.1 and back
                self._target.mux([packet for left in even.resample(None) for packet in new.encode(left)])
                kind, even = found, av.AudioResampler("fltp", new.layout, rate)
            self._target.mux([packet for one in even.resample(frame) for packet in new.encode(one)])

        def end() -> None:
            encode(None)
            self._target.mux(new.encode(None))

        def write(packet: Any) -> None:
            frames = []
            with suppress(av.error.InvalidDataError):
                frames = packet.decode()
            for frame in frames:
                encode(frame)

        self._ends.append(end)
        return write

    def _subtitles(self, stream: SubtitleStream, kind: str) -> Callable[[Any], None]:
        new = cast(SubtitleStream, self._target.add_stream(kind))
        describe(new, stream)
        new.codec_context.time_base = stream.time_base or Fraction(1, 1000)
        stream.codec_context.open(strict=False)
        new.codec_context.subtitle_header = stream.codec_context.subtitle_header

        def write(packet: Any) -> None:
            words = None
            with suppress(av.error.InvalidDataError):
                words = stream.codec_context.decode2(packet) if packet.size else None
            if words:
                encoded = new.codec_context.encode_subtitle(words)
                encoded.pts = encoded.dts = packet.pts
                encoded.duration, encoded.time_base, encoded.stream = packet.duration, packet.time_base, new
                self._target.mux(encoded)

        return write

    def _cover(self, stream: Any, kind: str) -> Callable[[Any], None]:
        if self._target.format.name != "matroska":
            return self._copied(stream)
        picture = bytes(next(packet for packet in stream.container.demux(stream) if packet.size))
        stream.container.seek(0)
        self._target.add_attachment(f"cover.{kind.replace('jpeg', 'jpg')}", f"image/{kind}", picture)
        return lambda packet: None


def _holds(target: OutputContainer, stream: Any) -> bool:
    """Whether a file like `target` can hold this track as it is: tried, as the list of what it holds says too much."""
    try:
        with av.open(io.BytesIO(), "w", format=target.format.name) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
        # Channels without places make MP4 fail at its end only.
        return target.format.name != "mp4" or stream.type != "audio" or "channels" not in stream.layout.name
    except (av.FFmpegError, ValueError):
        return False
