"""`python -m mofme bench`: what experts cost, and whole restorers and runtimes on the same pictures."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from mofme.cli.evaluate import HeldBack, Pairs, WeatherSeed, pair_sets
from mofme.cli.measuring import Command, measures
from mofme.files import DEFAULT_MODEL, without_name
from mofme.measure.result import Result

_EXPERTS = [1, 4, 16, 64, 128]
_BACKBONES = ["small", "small-x4"]
_CLIENTS = [1, 4, 16, 64]


@measures("bench.json")
def feed_forwards(
    command: Command,
    side: Annotated[int, typer.Option(help="Side of the picture in pixels, a multiple of 8.", min=8)] = 256,
    experts: Annotated[list[int], typer.Option(help="Number of experts; may be given again.", min=1)] = _EXPERTS,
    repeats: Annotated[int, typer.Option(help="Times each net runs, all in turn.", min=1)] = 5,
    backbone: Annotated[
        list[str],
        typer.Option(
            help="small (the restoration net), small-x4 (with feed-forwards as wide as in transformers) or tiny-x4 "
            "(the ablation's); may be given again."
        ),
    ] = _BACKBONES,
) -> Result:
    """Compare parameters, MACs, time and peak memory of dense, conventional MoE and MoFME feed-forwards."""
    from mofme.papers.mofme import judge_costs
    from mofme.vision.benchmark import BACKBONES, arms, as_result, measure

    if unknown := set(backbone) - set(BACKBONES):
        names = ", ".join(BACKBONES)
        raise typer.BadParameter(f"no such backbone: {', '.join(sorted(unknown))}. Choose from {names}.")
    if side % 8:
        raise typer.BadParameter(f"the side must be a multiple of 8, got {side}.")
    compared = arms(sorted(set(experts)))
    costs = {}
    for name in dict.fromkeys(backbone):
        with command.counting(name) as show:
            costs[name] = measure(name, side, compared, repeats, show)
    return judge_costs(as_result(costs, command.line))


@measures("restorers.json")
def restorers(
    command: Command,
    pairs: Pairs = None,
    held_back: HeldBack = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model by name or folder in place of all; may be given again.")
    ] = None,
    onnx: Annotated[
        list[Path] | None,
        typer.Option(help="A restoration net as ONNX file, (1, 3, H, W) in [0, 1] in and out; may be given again."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N pairs of each set.")] = None,
    seed: WeatherSeed = 0,
) -> Result:
    """Compare models, ONNX nets and classical filters on the same pictures by PSNR, SSIM, CPU time and peak memory."""
    from mofme.papers.mofme import judge_restorers
    from mofme.vision.comparison import as_result, compare, entries, peaks
    from mofme.vision.datasets import CLEAN
    from mofme.vision.models import available_models

    entered = entries(model or [card.name for card in available_models()], onnx or [])
    with TemporaryDirectory() as made:
        sets = pair_sets(pairs or [], held_back or [], seed, limit, Path(made))
        sets.pop(CLEAN, None)  # on which doing nothing is perfect
        trials = list(command.track(compare(entered, sets), "pictures", sum(map(len, sets.values()))))
        for trial in trials:
            if trial.error:
                command.fail(f"{trial.set}, {trial.name}: {without_name(trial.error, trial.name)}")
        memory = peaks(command.track(entered, "memory"), trials)
    return judge_restorers(as_result(trials, entered, memory, command.line, [seed] if held_back else []))


@measures("runtimes.json")
def runtimes(
    command: Command,
    pairs: Annotated[
        Path, typer.Argument(help="Folder with input/ and target/, or with folders that have (rain/, snow/).")
    ],
    model: Annotated[str, typer.Option(help="A model by name or folder.")] = DEFAULT_MODEL,
    limit: Annotated[int, typer.Option(min=1, help="Only the first N pairs of each set.")] = 3,
    repeats: Annotated[int, typer.Option(help="Times each pair is restored, by all in turn.", min=1)] = 5,
) -> Result:
    """Compare runtimes on the same pictures by CPU time, share of the CPU's peak, and dB lost; tell where their time
    goes, and what public nets reach by them.
    """
    from mofme.vision import runtime_benchmark as measured
    from mofme.vision.datasets import find_sets

    chosen = [pair for members in find_sets(pairs).values() for pair in members[:limit]]
    trials = list(command.track(measured.compare_runtimes(model, chosen, repeats), "restoring", repeats * len(chosen)))
    if not trials:
        return measured.as_result(model, trials, command.line)
    images = [pair.read()[0] for pair in chosen]
    profiles = list(
        command.track((measured.where_time_goes(model, image) for image in images), "profiling", len(images))
    )
    nets = dict(command.track(measured.compare_nets(model, repeats), "public nets", 1 + len(measured.public_nets())))
    rows = [*measured.profile_rows(profiles), *measured.net_rows(nets)]
    return measured.as_result(model, trials, command.line, rows)


@measures("cluster.json")
def cluster(
    command: Command,
    pictures: Annotated[int, typer.Option(min=4, help="How many, made for it.")] = 1000,
    side: Annotated[int, typer.Option(min=8, help="Side of each in pixels.")] = 96,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the run in which one is killed.")] = 2,
    price: Annotated[float, typer.Option(min=0, help="Of a CPU's second, in dollars.")] = 0.0000125,
    model: Annotated[str, typer.Option(help="A model by name or folder.")] = DEFAULT_MODEL,
    runtime: Annotated[str, typer.Option(help="torch, onnx or openvino, for all runs.")] = "torch",
) -> Result:
    """Restore small pictures without Ray and by it, kill a worker, and tell what a million frames cost."""
    from mofme.vision.cluster_benchmark import as_result, compare, frame_seconds

    outcomes = list(command.track(compare(model, runtime, pictures, side, workers), "runs", 3))
    for outcome in outcomes:
        if wrong := outcome.lost + outcome.doubled + outcome.unlike:
            command.fail(f"{outcome.name}: {wrong} files are lost, doubled or unlike those of one machine")
    return as_result(outcomes, frame_seconds(model, runtime), pictures, side, price, command.line)


@measures("service.json, or service_memory.json and a plot")
def service(
    command: Command,
    address: Annotated[
        str | None, typer.Option(help="An app that runs, such as http://127.0.0.1:7860/; without it one is started.")
    ] = None,
    clients: Annotated[list[int], typer.Option(help="Clients at once; may be given again.", min=1)] = _CLIENTS,
    pictures: Annotated[int, typer.Option(help="Small pictures for each number of clients.", min=2)] = 200,
    minutes: Annotated[
        float, typer.Option(help="Watch memory for so long, under the first number of clients, and measure no waits.")
    ] = 0,
) -> Result:
    """Measure the app under many clients at once: pictures a second, waits and refusals, or memory over time."""
    from contextlib import nullcontext

    from mofme.ui.load_test import as_result, draw_memory, measure_load, measure_memory, own_app

    with nullcontext(address.rstrip("/") + "/") if address else own_app() as app:
        if minutes:
            with command.counting("memory") as show:
                memory = measure_memory(app, clients[0], minutes, show)
            result = as_result(memory, command.line)
            if command.out:
                draw_memory(memory, command.out / "service_memory-growth.png")
            return result
        loads = []
        for number in clients:
            with command.counting(f"{number} at once") as show:
                loads.append(measure_load(app, number, pictures, show))
    return as_result(loads, command.line)
