"""A restorer with binary weights beside the same net with real ones: quality on the same photographs, size, time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mofme.core.moe import parameters
from mofme.errors import MofmeError
from mofme.files import model_folder
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.vision.comparison import NOTHING, Entry, Trial, by_set, distinct, values
from mofme.vision.datasets import CLEAN
from mofme.vision.models import load_net, weights_bytes

ROOM = "binary_restorer"
QUALITY, KEPT, SIZE, TIME = "PSNR, dB", "Clean photographs kept", "Size on disk", "Time"
_DIFFERENCE = "binary against real, gain in dB"


@dataclass(frozen=True)
class Model:
    """A restorer as it lies on disk. `binary` of its `weights` are of one bit."""

    entry: Entry
    weights: int
    binary: int
    bytes: int


def model(name: str) -> Model:
    """A shipped model by name, or one by its folder. Raises ModelError."""
    net, card = load_net(name)
    binary = sum(net.get_parameter(f"{layer}.weight").numel() for layer in card.arguments.get("binary", ()))
    # Alone: a real net that confirms haze would help the binary one.
    return Model(Entry("alone", name), parameters(net), binary, weights_bytes(model_folder(name)))


def two_models(binary: str, real: str) -> tuple[Model, Model]:
    """Raises ModelError for a model that cannot be loaded, MofmeError if they are not one of each kind."""
    both = model(binary), model(real)
    if not both[0].binary or both[1].binary:
        raise MofmeError(f"one model of binary and one of real weights are needed: {binary} and {real} are not")
    return both


def entries(both: tuple[Model, Model]) -> list[Entry]:
    """Who takes part in `comparison.compare`. Raises MofmeError if both have one name."""
    return distinct([Entry("nothing"), *(model.entry for model in both)])


def as_result(trials: Sequence[Trial], both: tuple[Model, Model], command: str, seed: int) -> Result:
    """A row a weather, clean photographs, size and time. Raises MofmeError if nothing was measured."""
    sets = by_set(trials)
    measured = [trial for among in sets.values() for trial in among]
    real = both[1]
    quality = [Row(KEPT if name == CLEAN else QUALITY, name, _quality(among, both)) for name, among in sets.items()]
    rows = [
        *sorted(quality, key=lambda row: row.table == KEPT),
        *(Row(SIZE, model.entry.title, _size(model, real)) for model in both),
        *(Row(TIME, model.entry.title, _time(measured, model, real)) for model in both),
    ]
    return Result(
        room=ROOM,
        paper="BinaryConnect (arXiv 1511.00363)",
        claim="weights of one bit, trained as such, do a net's work nearly as well as real ones; tried there on "
        "classifiers of MNIST, CIFAR-10 and SVHN",
        verdict=_verdict(sets, rows, both),
        command=command,
        rows=rows,
        seeds=[seed],
        interval="95 % bootstrap over the photographs, of differences photograph by photograph",
        machine=this_machine(torch.get_num_threads()),
    )


def _quality(trials: Sequence[Trial], both: tuple[Model, Model]) -> dict[str, Figure]:
    binary, real = (values(trials, model.entry.title, "psnr_rgb") for model in both)
    untouched = {} if trials[0].set == CLEAN else {"input": bootstrap(values(trials, NOTHING, "psnr_rgb"))}
    return {
        "photographs": Figure(len(trials)),
        **untouched,
        "real weights": bootstrap(real),
        "binary weights": bootstrap(binary),
        _DIFFERENCE: bootstrap(binary - real),
    }


def _size(model: Model, real: Model) -> dict[str, Figure]:
    return {
        "file, kB": Figure(round(model.bytes / 1000, 1)),
        "weights": Figure(model.weights),
        "of one bit, %": Figure(100 * model.binary / model.weights),
        **({} if model is real else {"times smaller": Figure(real.bytes / model.bytes)}),
    }


def _time(trials: Sequence[Trial], model: Model, real: Model) -> dict[str, Figure]:
    taken, beside = (np.array([t.outcomes[m.entry.title].seconds for t in trials]) for m in (model, real))
    megapixels = np.array([trial.pixels / 1e6 for trial in trials])
    ratio = {} if model is real else {"times as long": bootstrap(taken / beside, np.median)}
    return {"CPU time, ms a megapixel": bootstrap(1000 * taken / megapixels, np.median), **ratio}


def _verdict(sets: Mapping[str, Sequence[Trial]], rows: Sequence[Row], both: tuple[Model, Model]) -> str:
    """One sentence: what is saved, what it costs in every weather, what happens to clean photographs, and the time."""
    binary, real = both
    figures = {(row.table, row.name): row.figures for row in rows}
    losses = [f"{name} {figures[QUALITY, name][_DIFFERENCE].text(signed=True)}" for name in sets if name != CLEAN]
    parts = [
        f"With {100 * binary.binary / binary.weights:.0f} % of its weights in one bit each the restorer's file is "
        f"{real.bytes / binary.bytes:.1f} times smaller ({binary.bytes / 1000:,.0f} against {real.bytes / 1000:,.0f} "
        "kB in half precision)"
    ]
    if losses:
        parts.append(f"against the same net with real weights its PSNR changes by, in dB, {', '.join(losses)}")
    if CLEAN in sets:
        ours, others = (figures[KEPT, CLEAN][f"{kind} weights"].value for kind in ("binary", "real"))
        parts.append(f"clean photographs keep {ours:.1f} instead of {others:.1f} dB")
    ratio = figures[TIME, binary.entry.title]["times as long"]
    return f"{'; '.join(parts)}; it takes {ratio.text()} times as long."
