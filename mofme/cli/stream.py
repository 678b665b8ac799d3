"""`python -m mofme stream`: what a camera sees now, or a folder gets, restored as it comes."""

import statistics
import sys
import time
from collections import deque
from typing import Annotated

import typer

from mofme.cli.measuring import Command, with_exit_codes
from mofme.cli.restore import Device, Model, Runtime, Strength, Tile, load_restorer

_REMEMBERED = 1000  # latencies that the last line is made of
_LOG_EVERY = 60  # seconds between lines of progress in a file


@with_exit_codes
def stream(
    command: Command,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="The number of a camera, an rtsp:// or http:// address, a video, or a folder to be watched.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Where to show it: an http:// address of this machine for browsers, an rtsp:// server that takes "
            "streams, or a folder."
        ),
    ] = "http://127.0.0.1:8090",
    model: Model = "small",
    device: Device = "auto",
    runtime: Runtime = "auto",
    tile: Tile = None,
    strength: Strength = 1.0,
    side: Annotated[
        int | None, typer.Option(help="Make frames smaller, to this longer side in pixels, which is faster.", min=16)
    ] = None,
    keep: Annotated[
        int,
        typer.Option(help="How many files a folder keeps of a camera or an address, the newest; of files all.", min=1),
    ] = 1000,
    max_megapixels: Annotated[float, typer.Option(help="Refuse larger frames.", min=0)] = 100,
) -> None:
    """Restore the newest frame of SOURCE again and again, leaving out those that came meanwhile, until Ctrl-C."""
    from pathlib import Path

    from mofme.errors import PictureError
    from mofme.vision.stream import find_source, reading, restore_stream
    from mofme.vision.stream_out import open_output

    found = find_source(source, max_megapixels)
    if Path(out).is_dir() and Path(source).is_dir() and Path(out).samefile(source):
        raise PictureError(f"{out}: the results need another folder than the one that is watched.")
    latencies, counts = deque[float](maxlen=_REMEMBERED), "no frame yet"
    with open_output(out, None if found.is_files else keep) as (place, write), reading(found, command.tell) as latest:
        latest.after(0)  # a source that is not there is told before a model is loaded
        restorer = load_restorer(model, device, runtime)
        command.tell(f"{found.name} to {place}; Ctrl-C ends it")
        logged = time.monotonic()
        try:
            with command.console.status("waiting for a frame") as line:
                for done in restore_stream(
                    restorer, latest, side=side, tell=command.tell, strength=strength, tile=tile
                ):
                    write(done)
                    latencies.append(time.monotonic() - done.shot.came)
                    counts = f"{done.came} frames in, {done.restored} restored, {done.skipped} skipped"
                    counts += f", {done.failed} unreadable" if done.failed else ""
                    text = f"{counts}, latency {latencies[-1]:.2f} s, seen: {done.restoration.weather_name}"
                    line.update(text)
                    if not sys.stderr.isatty() and time.monotonic() - logged > _LOG_EVERY:
                        command.tell(text)
                        logged = time.monotonic()
        finally:
            late = (
                f", latency {statistics.median(latencies):.2f} s, {max(latencies):.2f} s at most" if latencies else ""
            )
            command.tell(counts + late)
