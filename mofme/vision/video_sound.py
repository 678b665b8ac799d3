"""The sound of a video, carried over into another one."""

from __future__ import annotations  # PyAV's classes take their parameters in the stubs only

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet


class Sound:
    """All sound of a video: copied as it is, or encoded anew where the new file cannot hold its kind."""

    def __init__(self, source: InputContainer, target: OutputContainer) -> None:
        self._target = target
        self._copies: dict[int, AudioStream] = {}
        self._encodes: dict[int, AudioStream] = {}
        streams = source.streams.audio
        for stream in streams:
            if stream.codec_context.name in target.supported_codecs:
                self._copies[stream.index] = target.add_stream_from_template(stream)
            else:
                encoder = "libopus" if target.format.name == "webm" else "aac"
                self._encodes[stream.index] = cast(AudioStream, target.add_stream(encoder, stream.rate))
        self._packets: Iterator[Packet[AudioStream]] = source.demux(streams) if streams else iter(())
        self._next = next(self._packets, None)

    def copy(self, until: Fraction | None = None) -> None:
        """Copy what begins up to this second of the video, or all that is left."""
        while (packet := self._next) is not None:
            if until is not None and packet.dts is not None and packet.dts * packet.time_base > until:
                return
            self._copy(packet)
            self._next = next(self._packets, None)

    def finish(self) -> None:
        """Write what the encoders hold back."""
        for stream in self._encodes.values():
            self._target.mux(stream.encode(None))

    def _copy(self, packet: Packet[AudioStream]) -> None:
        index = packet.stream.index
        if index in self._copies:
            if packet.dts is not None:  # the last one is empty
                packet.stream = self._copies[index]
                self._target.mux(packet)
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            return
        for frame in frames:
            self._target.mux(self._encodes[index].encode(frame))
