"""`python -m mofme restore` and `stream`: pictures, videos and folders of them, and what a camera sees now, cleared."""

import json
import statistics
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mofme.cli.measuring import Command, ExitCode, with_exit_codes
from mofme.errors import ModelError, MofmeError, PictureError
from mofme.files import DEFAULT_MODEL, address_of, check_can_hold, model_folder, on_disk, printable

if TYPE_CHECKING:
    from rich.progress import Progress

    from mofme.papers.r2t2.rerouter import Rerouted, Rerouter
    from mofme.vision.batch import BatchSettings
    from mofme.vision.report import FileReport
    from mofme.vision.restorer import Restorer

Model = Annotated[str, typer.Option(help="A shipped model (see `models`), or a folder from `train`.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Tile = Annotated[
    int | None, typer.Option(help="Side of a tile in pixels, where a smaller one takes less memory.", min=64)
]
Strength = Annotated[float, typer.Option(help="Share of the change to apply, 0 to 1.", min=0, max=1)]
Runtime = Annotated[
    Literal["auto", "torch", "onnx", "openvino"],
    typer.Option(
        help="What the net runs by on a CPU; auto: for folders, videos and streams the fastest that is installed, by a "
        "short measurement that is kept, for one picture torch, which starts soonest."
    ),
]
_NAMED = 5  # files of one kind that are named on the screen; the report names all
_REPORT_EVERY = 5  # seconds: what a killed run may lose of its report


@with_exit_codes
def restore(
    command: Command,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help="A picture, a video, a folder of them (with all folders in it), or its address as s3://bucket/in.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="A folder or its address, or for one picture or video a file whose suffix decides the format.",
        ),
    ],
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    runtime: Runtime = "auto",
    tile: Tile = None,
    strength: Strength = 1.0,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="Average with the mirror image: a little closer, most in rain and snow, twice as slow."
        ),
    ] = False,
    reroute: Annotated[
        bool,
        typer.Option("--reroute", help="Move the experts' weights to what served similar pictures, which is slower."),
    ] = False,
    references: Annotated[
        Path | None, typer.Option(help="Folder from `build-references`, to re-route by others than the shipped ones.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    format: Annotated[
        str | None, typer.Option(help="png, jpg, webp, tiff, ... in place of each picture's own.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON document.")] = False,
    max_megapixels: Annotated[float, typer.Option(help="Refuse larger pictures.", min=0)] = 100,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="local, or ray for a folder restored by a cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster that runs, as HOST:PORT or auto, in place of one that --engine ray starts."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes of --engine ray, in place of all that fit.", min=1)
    ] = None,
    gpus_per_worker: Annotated[
        float, typer.Option(help="Share of a GPU that each process of --engine ray takes.", min=0)
    ] = 0,
) -> None:
    """Restore INPUT to OUTPUT, mirroring a folder's tree and leaving out what is there already."""
    from mofme.vision.batch import BatchSettings
    from mofme.vision.video_file import VIDEO_SUFFIXES

    source, output = on_disk(source), on_disk(output)
    if not (address_of(source) or source.exists()):
        raise typer.BadParameter(f"Path '{printable(str(source))}' does not exist.", param_hint="'INPUT'")
    is_folder = bool(address_of(source)) or source.is_dir()
    if engine == "ray" and (reroute or references or not is_folder):
        raise typer.BadParameter("a cluster restores folders, and re-routes none: leave out --engine ray.")
    if engine == "local" and (address or workers or gpus_per_worker):
        raise typer.BadParameter("--address, --workers and --gpus-per-worker go with --engine ray.")
    if address_of(output) and not is_folder:
        raise typer.BadParameter(f"to {address_of(output)} only folders are restored.", param_hint="'OUTPUT'")
    warnings.filterwarnings("ignore", module="PIL")  # its remarks on odd metadata say nothing to a user
    settings = BatchSettings(strength, ensemble, tile, format, overwrite, max_megapixels)
    reports: list[FileReport] = []
    rerouted: list[Rerouted] = []
    interrupted = False
    start = time.monotonic()
    by: str = runtime
    is_long = is_folder or source.suffix.lower() in VIDEO_SUFFIXES
    if by == "auto" and (reroute or references or gpus_per_worker or not is_long):
        by = "torch"  # which starts soonest
    if by == "auto" and engine == "ray":  # one choice, measured here, for all workers: so their bytes are the same
        restorer = load_restorer(model, device, by)
        device, by = str(restorer.device), restorer.runtime
    # Workers stand in another folder.
    is_own = Path(model).is_dir() and model_folder(model) == Path(model)  # not the name of a shipped one
    named = str(Path(model).absolute()) if engine == "ray" and is_own else model
    load = partial(_load, named, device, by, references, reroute, rerouted)
    cluster = {"address": address, "workers": workers, "gpus": gpus_per_worker} if engine == "ray" else None
    restore = partial(_restore_folder, cluster) if is_folder else _restore_one
    try:
        with command.progress() as progress:
            restore(command, progress, reports, load, source, output, settings)
    except KeyboardInterrupt:
        interrupted = True
    except (MofmeError, OSError) as error:
        if not reports:
            raise
        command.fail(f"error: {error}")

    failed = sum(bool(report.error) for report in reports)
    skipped = sum(report.skipped for report in reports)
    restored = len(reports) - failed - skipped
    command.tell(
        f"{restored} restored, {failed} failed, {skipped} skipped because they are there already, "
        f"in {time.monotonic() - start:.1f} s" + (" (interrupted; start again to go on)" if interrupted else "")
    )
    for note in dict.fromkeys(report.note for report in reports if report.note):
        files = [report.file for report in reports if report.note == note]
        others = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
        command.tell(f"note: {note}: {', '.join(files[:_NAMED])}{others}")
    if rerouted:
        command.tell(_what_it_cost(rerouted))
    if as_json:
        document: dict[str, Any] = {"model": model, "restored": restored, "failed": failed, "skipped": skipped}
        document["interrupted"] = interrupted
        if rerouted:
            costs = [{"extra_seconds": one.extra_seconds, "moved": one.moved} for one in rerouted]
            document["rerouted"] = costs
        document["files"] = [asdict(replace(report, error=report.reason)) for report in reports]
        print(json.dumps(document, indent=2))
    if interrupted:
        raise typer.Exit(ExitCode.CANCELLED)


def _restore_folder(
    cluster: dict[str, Any] | None,
    command: Command,
    progress: "Progress",
    reports: "list[FileReport]",
    load: "Callable[[], Restorer | Rerouter]",
    source: Path,
    target: Path,
    settings: "BatchSettings",
) -> None:
    """Fill `reports`, and the report file beside the outputs, also when interrupted."""
    from mofme.vision.batch import restore_tree
    from mofme.vision.cluster import restore_tree_by_ray
    from mofme.vision.remote import mirrored, send
    from mofme.vision.report import REPORT, others_in, plan_tree, write_report

    # Ray tells of workers that died where `--json` prints.
    with mirrored(source, target) as mirror, redirect_stdout(sys.stderr):
        inputs, outputs = mirror.path(source), mirror.path(target)
        total, others = len(plan_tree(inputs, outputs, settings.format)), others_in(inputs, outputs)
        if not total:
            raise PictureError(f"{inputs}: no pictures or videos found." + (f" Left out: {others}." if others else ""))
        if others:
            command.tell(f"left out: {others}")
        task = progress.add_task("restoring", total=total)

        def tell(path: Path, done: float) -> None:
            progress.update(task, completed=len(reports) + done, description=printable(f"restoring {path.name}"))

        def keep() -> float:
            """Write the report, and tell when. One that says the same is not sent: results would be older than it."""
            file, address = outputs / REPORT, address_of(target)
            before = file.read_bytes() if file.is_file() else b""
            write_report(file, reports)
            if address and file.read_bytes() != before:
                send(file, f"{address}/{REPORT}")
            return time.monotonic()

        if cluster is None:
            restored = restore_tree(load(), inputs, outputs, settings, on_progress=tell, kind=mirror.file)
        else:
            restored = restore_tree_by_ray(load, inputs, outputs, settings, **cluster, kind=mirror.file)
        written = keep()  # what stands in its way is told before the work
        try:
            for report in restored:
                reports.append(report)
                progress.update(task, completed=len(reports))
                if report.error:
                    command.fail(f"failed: {report.error}")
                if time.monotonic() - written > _REPORT_EVERY:
                    written = keep()
        finally:
            keep()


def _restore_one(
    command: Command,
    progress: "Progress",
    reports: "list[FileReport]",
    load: "Callable[[], Restorer | Rerouter]",
    source: Path,
    output: Path,
    settings: "BatchSettings",
) -> None:
    from mofme.vision.batch import restore_file

    output, format = _one_output(source, output, settings.format)
    if output.exists():
        if output.samefile(source):
            raise PictureError(f"{output}: the result would replace the original; give another name.")
        if not settings.overwrite:
            raise PictureError(f"{output}: exists already; give another name or --overwrite.")
    check_can_hold(output)
    task = progress.add_task(printable(f"restoring {source.name}"), total=1)
    settings = replace(settings, format=format)
    report = restore_file(load(), source, output, settings, lambda share: progress.update(task, completed=share))
    reports.append(report)
    if report.error:
        command.fail(f"failed: {report.error}")


def _one_output(source: Path, output: Path, format: str | None) -> tuple[Path, str | None]:
    """The file to write, and the format of a picture that is to have another. Raises PictureError."""
    from mofme.vision.picture.file import FORMATS, FORMATS_AS_TYPED
    from mofme.vision.report import output_suffix
    from mofme.vision.video_file import CONTAINERS, VIDEO_SUFFIXES

    if format and f".{format.lower()}" not in FORMATS:
        raise PictureError(f"cannot write {format!r}; choose one of {FORMATS_AS_TYPED}.")
    if output.is_dir() or not (output.suffix or format):  # no suffix and no format: a folder to be made
        return output / source.with_suffix(output_suffix(source, format)).name, format
    suffix = output.suffix.lower()
    if source.suffix.lower() in VIDEO_SUFFIXES:
        if suffix not in CONTAINERS:
            raise PictureError(f"{output}: no video has this suffix; end the name in {', '.join(CONTAINERS)}.")
    elif format is None:
        wanted, own = FORMATS.get(suffix), FORMATS.get(source.suffix.lower())
        if wanted is None:
            raise PictureError(f"{output}: no format has this suffix; end the name in .png, say, or give --format.")
        return output, wanted if wanted != own else None
    return output, format


def load_restorer(model: str, device: str, runtime: str = "torch") -> "Restorer":
    """Raises ModelError."""
    from mofme.vision.restorer import Restorer

    try:
        return Restorer.from_pretrained(model, device, runtime)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that is not there
        raise ModelError(f"the device {device!r} cannot be used: {error}") from error


def _load(
    model: str, device: str, runtime: str, references: Path | None, reroute: bool, rerouted: "list[Rerouted]"
) -> "Restorer | Rerouter":
    """The model; with `reroute` one that adds to `rerouted` what became of every picture."""
    from mofme.papers.r2t2.references import SHIPPED, References
    from mofme.papers.r2t2.rerouter import Rerouter

    restorer = load_restorer(model, device, runtime)
    if not (reroute or references):
        return restorer
    return Rerouter(restorer, References.load(references or SHIPPED), report=rerouted.append)


def _what_it_cost(rerouted: "list[Rerouted]") -> str:
    """One line; what was gained nobody knows without the clean picture, so the measured result is quoted."""
    from mofme.papers.r2t2.picture_experiment import measured_gain

    seconds = statistics.fmean(one.extra_seconds for one in rerouted)
    moved = statistics.fmean(one.moved for one in rerouted)
    return (
        f"re-routed by {rerouted[0].method}: {seconds:.1f} s more a picture, routing moved by {moved:.1%} of its "
        f"length; {measured_gain()}"
    )


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
    model: Model = DEFAULT_MODEL,
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
    from mofme.vision.stream import find_source, reading, restore_stream
    from mofme.vision.stream_out import open_output

    if not (source and out):
        raise typer.BadParameter("SOURCE and --out need a name each; write . for the folder you are in.")
    found = find_source(source, max_megapixels)
    if Path(out).is_dir() and Path(source).is_dir() and Path(out).samefile(source):
        raise PictureError(f"{out}: the results need another folder than the one that is watched.")
    latencies, counts = deque[float](maxlen=_REMEMBERED), "no frame yet"
    with open_output(out, None if found.is_files else keep) as (place, write), reading(found, command.tell) as latest:
        command.tell(f"waiting for the first picture of {found.name}")
        latest.after(0)  # a source that is not there is told before a model is loaded
        restorer = load_restorer(model, device, runtime)
        command.tell(f"{found.name} to {place}; Ctrl-C ends it")
        logged = time.monotonic()
        try:
            with command.console.status("waiting for a frame") as line:
                how: dict[str, Any] = {"side": side, "tell": command.tell, "strength": strength, "tile": tile}
                for done in restore_stream(restorer, latest, **how):
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
            if latencies:
                counts += f", latency {statistics.median(latencies):.2f} s, {max(latencies):.2f} s at most"
            command.tell(counts)
