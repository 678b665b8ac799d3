"""`python -m mofme train`, `train-tone`, `train-segmenter`: nets for pictures; `synthesize`: pairs to train on."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, with_exit_codes
from mofme.errors import PictureError
from mofme.files import DEFAULT_MODEL

Sources = Annotated[str, typer.Option(help="The training data and its licences, for the card.")]
Licence = Annotated[str, typer.Option(help="Licence of the weights, for the card.")]
Haze = Annotated[
    list[str] | None,
    typer.Option(help="FOLDER=SHARE of clear/ and trans/, the share of the light that haze lets through."),
]
Identity = Annotated[float, typer.Option(min=0, max=0.9, help="Share of scenes in which nothing is to be done.")]


@dataclass(frozen=True)
class Restorer:
    """Options that are the plan's own, but for `judge` and `device`."""

    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs.", exists=True, file_okay=False)]
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Where the model, the log and the state to resume from go.")
    ]
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            help="FOLDER=SHARE of pairs in input/ and target/, or in rain/input/ and so on where it is rain "
            "(clean/ where it is none), and their share of the scenes; may be given again."
        ),
    ] = None
    haze: Haze = None
    rain_layers: Annotated[
        list[str] | None, typer.Option(help="FOLDER=SHARE of pairs whose rain is put on the clean photographs.")
    ] = None
    identity: Identity = 0.1
    judge: Annotated[
        list[Path] | None, typer.Option(help="A folder of pairs to measure on at each validation, never trained on.")
    ] = None
    size: Annotated[str, typer.Option(help="Size of the net, small or base.")] = "small"
    init: Annotated[Path | None, typer.Option(help="A model to start from, a shipped one's name or a folder.")] = None
    minutes: Annotated[float, typer.Option(help="How long to train, over all resumed runs together.")] = 60.0
    batch: Annotated[int, typer.Option(min=1, help="Crops a step, and on each GPU.")] = 8
    crop: Annotated[int, typer.Option(min=8, help="Side of the first crops in pixels, a multiple of 8.")] = 128
    canvas: Annotated[int, typer.Option(min=64, help="About the side of the scenes that crops are cut from.")] = 320
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3
    seed: Annotated[int, typer.Option(help="Seed of the weights, the crops and the weather.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    validate_minutes: Annotated[float, typer.Option(help="Minutes between two validations.")] = 10.0
    sources: Sources = ""
    licence: Licence = ""
    binary: Annotated[
        bool,
        typer.Option("--binary", help="Train most weights as single bits, beginning with a trained model (--init)."),
    ] = False


@with_exit_codes
def train(command: Command, options: Restorer) -> None:
    """Train a restorer on clean photographs, on from where it was stopped."""
    from mofme.vision.training import TrainingPlan
    from mofme.vision.training import train as learn

    if options.crop % 8:
        raise typer.BadParameter(f"the crop must be a multiple of 8, got {options.crop}.")
    plan = vars(options) | {name: _shares(getattr(options, name)) for name in ("pairs", "haze", "rain_layers")}
    judges, device = plan.pop("judge") or (), plan.pop("device")
    learn(TrainingPlan(judges=judges, **plan), report=command.tell, device=device)


def _shares(options: list[str] | None) -> dict[Path, float]:
    """`FOLDER=SHARE`, or `FOLDER` alone for a tenth of the scenes."""
    shares = {}
    for option in options or []:
        folder, _, share = option.rpartition("=")
        try:
            path, value = (Path(folder), float(share)) if folder else (Path(option), 0.1)
        except ValueError:
            raise typer.BadParameter(f"{option}: the share after = must be a number between 0 and 1.") from None
        shares[path] = value
    return shares


@dataclass(frozen=True)
class Tone:
    """Options that are the plan's own."""

    clean: Annotated[list[Path], typer.Argument(help="Folders of clean photographs.")]
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for the weights, used if it is `tone` in the restorer's own.")
    ]
    haze: Haze = None
    identity: Identity = 0.25
    model: Annotated[str, typer.Option(help="The restorer, a shipped model or a folder from `train`.")] = DEFAULT_MODEL
    samples: Annotated[int, typer.Option(min=1, help="Pictures to restore and learn from.")] = 16_000
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1500
    batch: Annotated[int, typer.Option(min=2, help="Pictures a step.")] = 64
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 4e-3
    seed: Annotated[int, typer.Option(help="Seed of the weights, the pictures and their weather.")] = 0
    sources: Sources = ""
    licence: Licence = ""


@with_exit_codes
def train_tone(command: Command, plan: Tone) -> None:
    """Train what gives a restorer's hazy pictures the gain and offset that they still lack."""
    import torch

    from mofme.vision.tone_training import TonePlan
    from mofme.vision.tone_training import train_tone as learn

    torch.set_num_threads(1)
    learn(TonePlan(**vars(plan) | {"haze": _shares(plan.haze)}), report=command.tell)


@dataclass(frozen=True)
class Segmenter:
    """Options that are the plan's own."""

    frames: Annotated[Path, typer.Argument(help="Folder of clean frames.", exists=True, file_okay=False)]
    labels: Annotated[Path, typer.Argument(help="Folder of their label pictures.", exists=True, file_okay=False)]
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the model and the state to resume from go.")]
    label_set: Annotated[str, typer.Option(help="What the labels mean, a built-in name or a JSON file.")] = "camvid"
    steps: Annotated[int, typer.Option(min=1, help="Steps to train.")] = 800
    batch: Annotated[int, typer.Option(min=2, help="Parts of frames a step.")] = 8
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3
    seed: Annotated[int, typer.Option(help="Seed of the weights and the parts of frames.")] = 0
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Begin without ImageNet's features.")] = False
    sources: Sources = ""
    licence: Licence = ""
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help="A video to measure on, by the first part of its frames' names; may be given again."),
    ] = None


@with_exit_codes
def train_segmenter(command: Command, options: Segmenter) -> None:
    """Train the segmenter of `evaluate segmentation` on clean frames, on from where it was stopped."""
    from mofme.vision.segmenter_training import SegmenterPlan
    from mofme.vision.segmenter_training import train_segmenter as learn

    plan = dict(vars(options))
    left_out = tuple(plan.pop("leave_out") or ())
    learn(SegmenterPlan(pretrained=not plan.pop("from_scratch"), leave_out=left_out, **plan), report=command.tell)


@with_exit_codes
def synthesize(
    command: Command,
    clean: Annotated[
        Path, typer.Argument(help="A picture, or a folder of them (with all folders in it).", exists=True)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the pairs, OUT/input and OUT/target.", file_okay=False)],
    weather: Annotated[
        list[str],
        typer.Option(
            help="rain, snow, raindrop or haze, of which several are mixed on one picture, or all for a pair of each, "
            "or clean to leave pictures as they are."
        ),
    ],
    seed: Annotated[int, typer.Option(help="The same seed makes the same weather.")] = 0,
    count: Annotated[int, typer.Option(help="Pairs to make from every picture.", min=1)] = 1,
) -> None:
    """Write OUT/input/NAME.png with weather and OUT/target/NAME.png without, for every picture of CLEAN."""
    from mofme.vision.datasets import picture_names, write_pair
    from mofme.vision.picture.file import find_pictures, read_whole

    variants = _variants(weather)
    folder = clean if clean.is_dir() else clean.parent
    found = find_pictures(folder) if clean.is_dir() else [clean]
    made = [os.path.realpath(out / part) for part in ("input", "target")]
    paths = [path for path in found if not any(path.resolve().is_relative_to(part) for part in made)]
    if not paths:
        pairs = " but those of the pairs themselves" if found else ""
        raise PictureError(f"{clean}: no pictures found{pairs}.")
    failed = 0
    named = list(zip(paths, picture_names(paths, folder), strict=True))
    for path, name in command.track(named, "pairs"):
        try:
            picture = read_whole(path)
            for suffix, weathers in variants.items():
                for number in range(count):
                    pair = f"{name}{suffix}" + (f"_{number:03d}" if count > 1 else "")
                    write_pair(picture, pair, weathers, seed, out)
        except PictureError as error:
            failed += 1
            command.fail(f"skipped {error}")
    command.tell(f"{len(paths) - failed} of {len(paths)} pictures done, pairs in {out}")


def check_weathers(names: Collection[str], also: Collection[str] = ()) -> None:
    """Raises typer.BadParameter for a name that is none of WEATHERS, nor one of `also`."""
    from mofme.vision.weather import WEATHERS

    known = (*WEATHERS, *also)
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no such weather: {', '.join(sorted(unknown))}. Choose from {', '.join(known)}.")


def _variants(weather: list[str]) -> dict[str, frozenset[str]]:
    """The pairs to make of a picture: what is added to its name, and the weathers on it."""
    from mofme.vision.weather import WEATHERS

    wanted, alone = frozenset(weather), ("all", "clean")
    check_weathers(weather, also=alone)
    if wanted & {*alone} and len(wanted) > 1:
        raise typer.BadParameter("all and clean stand alone; leave the other names out.")
    if "all" in wanted:
        return {f"_{name}": frozenset({name}) for name in WEATHERS}
    return {"": wanted - {*alone}}
