"""Restorers against each other: the same pictures, the same machine, one run, all in turn on every picture.

Among them what people reach for before a trained net: classical filters with their published or customary parameters.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mofme.errors import ModelError, MofmeError
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, bootstrap
from mofme.vision.benchmark import peak_of
from mofme.vision.datasets import PairFiles
from mofme.vision.evaluation import Scores, measure, to_8_bits
from mofme.vision.onnx import OnnxRestorer, load_onnx
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer

ALL = "all pictures"
COST = "Time and memory"
NOTHING = "doing nothing"
Kind = Literal["nothing", "model", "alone", "baseline", "onnx"]
Array = NDArray[Any]


def guided_filter(guide_HW: Array, image_HW: Array, radius: int, epsilon: float) -> Array:
    """He, Sun and Tang, "Guided image filtering" (ECCV 2010): `image` smoothed along the edges of `guide`, float32."""
    # kornia's gives the same, but takes ten times as long: its time would tell of the library, not of the filter.

    def mean(x: Array) -> Array:
        return cv2.boxFilter(x, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT_101)

    mean_guide, mean_image = mean(guide_HW), mean(image_HW)
    covariance = mean(guide_HW * image_HW) - mean_guide * mean_image
    variance = mean(guide_HW * guide_HW) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)  # Eq. (5)
    offset = mean_image - slope * mean_guide  # Eq. (6)
    return mean(slope) * guide_HW + mean(offset)  # Eq. (8)


def dehaze(rgb_HWC: Array) -> Array:
    """He, Sun and Tang, "Single image haze removal using dark channel prior" (CVPR 2009), float32.

    Patches of 15 x 15, omega .95 and a transmission of at least .1, as published; the transmission is refined by the
    guided filter (radius 20, epsilon .001), with which its authors replaced soft matting.
    """
    dark = _dark_channel(rgb_HWC)
    # The air's light: of the .1 % with the brightest dark channel, the pixel that is brightest in the picture.
    count = max(dark.size // 1000, 1)
    candidates = rgb_HWC.reshape(-1, 3)[np.argpartition(dark.ravel(), -count)[-count:]]
    light = np.maximum(candidates[candidates.sum(axis=1).argmax()], 1 / 255)
    transmission = 1 - 0.95 * _dark_channel(rgb_HWC / light)  # Eq. (12)
    transmission = guided_filter(rgb_HWC.mean(axis=2), transmission, 20, 1e-3)
    return (rgb_HWC - light) / np.maximum(transmission, 0.1)[..., None] + light  # Eq. (16)


def _dark_channel(rgb_HWC: Array) -> Array:
    return cv2.erode(rgb_HWC.min(axis=2), np.ones((15, 15), np.uint8))


def _equalize(rgb_HWC: Array) -> Array:
    """Contrast-limited adaptive histogram equalization of the lightness, as in OpenCV's tutorial."""
    lightness, a, b = cv2.split(cv2.cvtColor(rgb_HWC, cv2.COLOR_RGB2LAB))
    lightness = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lightness)
    return cv2.cvtColor(cv2.merge([lightness, a, b]), cv2.COLOR_LAB2RGB)


def _on_floats(restore: Callable[[Array], Array]) -> Callable[[Tensor], Tensor]:
    def restore_tensor(image: Tensor) -> Tensor:
        restored = restore(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        return torch.from_numpy(np.ascontiguousarray(restored.transpose(2, 0, 1), np.float32)).clamp(0, 1)

    return restore_tensor


def _on_bytes(restore: Callable[[Array], Array]) -> Callable[[Tensor], Tensor]:
    return _on_floats(lambda rgb: restore((rgb * 255).round().astype(np.uint8)).astype(np.float32) / 255)


# Each maps a picture (3, H, W), RGB in [0, 1], to one of the same size. OpenCV's filters have its own defaults, or the
# numbers of its manual where it has none.
BASELINES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "median blur, 3 wide": _on_bytes(lambda rgb: cv2.medianBlur(rgb, 3)),
    "bilateral filter, 9 wide": _on_bytes(lambda rgb: cv2.bilateralFilter(rgb, 9, 75, 75)),
    "non-local means": _on_bytes(lambda rgb: cv2.fastNlMeansDenoisingColored(rgb, None, 3, 3, 7, 21)),
    # Each channel its own guide; the weakest setting of the paper's examples.
    "guided filter": _on_floats(
        lambda rgb: np.stack([guided_filter(one, one, 4, 0.1**2) for one in cv2.split(rgb)], 2)
    ),
    "dark channel": _on_floats(dehaze),
    "CLAHE": _on_bytes(_equalize),
}


@dataclass(frozen=True)
class Entry:
    """Who takes part: a model's name or folder (`alone`: nobody confirms its haze), a name of BASELINES, or
    the path of an ONNX file."""

    kind: Kind
    what: str = ""

    @property
    def title(self) -> str:
        """The name it has in tables."""
        return NOTHING if self.kind == "nothing" else Path(self.what).name

    def load(self) -> Callable[[Tensor], Tensor]:
        """Maps a picture (3, H, W) in [0, 1] to a restored one, on the CPU. Raises ModelError."""
        match self.kind:
            case "nothing":
                return lambda image: image
            case "baseline":
                return BASELINES[self.what]
            case "onnx":
                return checked(OnnxRestorer(load_onnx(Path(self.what))), self.what)
            case "model" | "alone":
                restorer = Restorer.from_pretrained(self.what, device="cpu")
                if self.kind == "alone":
                    restorer.second = None
                return lambda image: restorer(image).image


def checked(restore: Callable[[Tensor], Tensor], what: str) -> Callable[[Tensor], Tensor]:
    """The same, once it has restored a slope of greys. Raises ModelError for a net that gives no picture in [0, 1]."""
    restored = restore(torch.linspace(0.2, 0.8, 64).expand(3, 64, 64))
    if not restored.abs().max() < 2:  # of no use either: not a number
        raise ModelError(
            f"{what}: greys of 0.2 to 0.8 come out as {restored.min():.3g} to {restored.max():.3g}; only nets that "
            "take and give RGB in [0, 1] can be compared"
        )
    return restore


class Outcome(NamedTuple):
    """How close it came, in how many seconds of the CPU, whatever else that did."""

    scores: Scores
    seconds: float


@dataclass(frozen=True)
class Trial:
    """One pair: what every entry made of it, by its title, or why it could not be measured."""

    set: str
    name: str
    path: Path
    pixels: int = 0
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    error: str = ""


def entries(models: Sequence[str], onnx: Sequence[Path]) -> list[Entry]:
    """Doing nothing, the models, the ONNX files and all baselines. Raises MofmeError if two have one name."""
    # Absolute, because memory is measured in a process that starts elsewhere.
    others = [Entry("onnx", str(path.resolve())) for path in onnx]
    filters = [Entry("baseline", name) for name in BASELINES]
    return distinct([Entry("nothing"), *(Entry("model", name) for name in models), *others, *filters])


def distinct(chosen: list[Entry]) -> list[Entry]:
    """The same. Raises MofmeError if two have one name."""
    titles = [entry.title for entry in chosen]
    if twice := {title for title in titles if titles.count(title) > 1}:
        raise MofmeError(f"two restorers have the name {', '.join(sorted(twice))}: rename one, or leave it out")
    return chosen


def compare(entered: Sequence[Entry], sets: Mapping[str, Sequence[PairFiles]]) -> Iterator[Trial]:
    """Restore and measure pair by pair, all entries in turn. A pair that one of them fails on counts for none.

    Raises ModelError if an entry cannot be loaded.
    """
    # OpenCV has threads of its own: all get as many as torch.
    cv2.setNumThreads(torch.get_num_threads())
    restorers = {entry.title: entry.load() for entry in entered}
    warm = False
    for name, pairs in sets.items():
        for pair in pairs:
            try:
                weathered, clean = pair.read()
                if not warm:
                    for restore in restorers.values():  # the first time, which compiles and allocates, does not count
                        restore(weathered)
                    warm = True
                outcomes = {}
                for title, restore in restorers.items():
                    start = time.process_time()
                    restored = restore(weathered)
                    seconds = time.process_time() - start
                    outcomes[title] = Outcome(measure(to_8_bits(restored), clean), seconds)
                yield Trial(name, pair.name, pair.input, clean[0].numel(), outcomes)
            except (MofmeError, ValueError) as error:
                yield Trial(name, pair.name, pair.input, error=str(error))


def peaks(entered: Iterable[Entry], trials: Sequence[Trial]) -> dict[str, int]:
    """Peak memory in bytes that each entry needs for the largest picture, above a process that does nothing with it."""
    measured = [trial for trial in trials if not trial.error]
    if not measured:
        return {}
    picture = max(measured, key=lambda trial: trial.pixels).path
    words = (str(picture), str(torch.get_num_threads()))
    told = {entry: peak_of(run_once, entry.kind, entry.what, *words) for entry in entered}
    idle = next((peak for entry, peak in told.items() if entry.kind == "nothing"), None)
    return {entry.title: max(peak - idle, 0) for entry, peak in told.items() if peak is not None and idle is not None}


def run_once(kind: Kind, what: str, picture: str, threads: str) -> None:
    """Restore one picture in this process, for `peak_of`."""
    torch.set_num_threads(int(threads))
    cv2.setNumThreads(int(threads))
    Entry(kind, what).load()(read_picture(Path(picture)).rgb)


def as_result(
    trials: Sequence[Trial],
    entered: Sequence[Entry],
    peak_bytes: Mapping[str, int],
    command: str,
    seeds: Sequence[int] = (),
) -> Result:
    """A table a set of pairs, one of all, and one of time and memory. Raises MofmeError if nothing was measured."""
    sets = by_set(trials)
    measured = [trial for among in sets.values() for trial in among]
    tables = sets if len(sets) == 1 else {**sets, ALL: measured}
    rows = [Row(name, entry.title, _quality(among, entry)) for name, among in tables.items() for entry in entered]
    rows += [Row(COST, entry.title, _cost(measured, entry, peak_bytes)) for entry in entered if entry.kind != "nothing"]
    megapixels = max(trial.pixels for trial in measured) / 1e6
    return Result(
        room="restorers",
        paper="MoFME, arXiv 2312.16610",
        claim="One net for all weathers restores as well as the best restorers.",
        verdict="",  # what it says stands in `papers/mofme`
        command=command,
        rows=rows,
        seeds=seeds,
        interval="95 % bootstrap over the pictures, of means and of median times; memory on a picture of "
        f"{megapixels:.2f} megapixels, above a process that does nothing with it",
        machine=this_machine(torch.get_num_threads()),
    )


def by_set(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Those that were measured, by the name of their set. Raises MofmeError if none was."""
    sets: dict[str, list[Trial]] = {}
    for trial in trials:
        if not trial.error:
            sets.setdefault(trial.set, []).append(trial)
    if not sets:
        raise MofmeError(f"no pair could be measured: {'; '.join(trial.error for trial in trials[:3])}")
    return sets


def values(trials: Sequence[Trial], title: str, metric: str) -> FloatArray:
    """The scores of one entry by a metric."""
    return np.array([getattr(trial.outcomes[title].scores, metric) for trial in trials])


def _quality(trials: Sequence[Trial], entry: Entry) -> dict[str, Figure]:
    psnr, ssim = (values(trials, entry.title, metric) for metric in ("psnr_rgb", "ssim_rgb"))
    figures = {"PSNR, dB": bootstrap(psnr), "SSIM": bootstrap(ssim)}
    if entry.kind != "nothing":
        figures["PSNR gain, dB"] = bootstrap(psnr - values(trials, NOTHING, "psnr_rgb"))
        figures["SSIM gain"] = bootstrap(ssim - values(trials, NOTHING, "ssim_rgb"))
    return figures


def _cost(trials: Sequence[Trial], entry: Entry, peak_bytes: Mapping[str, int]) -> dict[str, Figure]:
    per_megapixel = [1e9 * trial.outcomes[entry.title].seconds / trial.pixels for trial in trials]
    figures = {"CPU time, ms a megapixel": bootstrap(np.array(per_megapixel), np.median)}
    if entry.title in peak_bytes:
        figures["peak memory, MB"] = Figure(peak_bytes[entry.title] / 1e6)
    return figures
