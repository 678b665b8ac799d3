"""Making a reference set from photographs: pairs that the net solves, and how descent would have routed them better.

Photographs that training holds back are left for measuring, and 1 in 20 of the others for tuning, by name alone. On
these method and settings are chosen, among those that need no pairs at use.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mofme.core import rerouting
from mofme.core.weights import checksum
from mofme.errors import MofmeError, PictureError
from mofme.papers.r2t2.references import KINDS, METHODS, Choices, Method, References
from mofme.papers.r2t2.rerouter import RATE_FALLS_TO, find, observed, pairs_loss
from mofme.vision.datasets import held_back, with_weather
from mofme.vision.metrics import psnr
from mofme.vision.picture.file import find_pictures, read_picture
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

CROP = 96
TUNING_CROP = 128
SOLVED = 1.0  # dB gained at least
KEPT = 40.0  # dB to itself that a clear picture keeps at least
_TUNING_SHARE = 20
_MOST_TUNING = 20
_KS = (5, 20)
LARGEST_K = max(_KS)
_OWN = (0.25, 0.5, 0.75, 0.9)
_STRIDES = (0.25, 0.5, 1.0, 2.0)

Report = Callable[[int, int], None]


class Sample:
    """A pair (3, S, S), looked at: what of it is restored, its PSNR and its gain in dB."""

    def __init__(self, restorer: Restorer, kind: str, weathered: Tensor, clean: Tensor) -> None:
        self.kind, self.weathered, self.clean = kind, weathered, clean
        with observed(restorer.net) as self.seen:
            self.restored = restorer(weathered).image
        self.decibels = decibels(self.restored, clean)
        self.gain = self.decibels - decibels(weathered, clean)


def decibels(image: Tensor, clean: Tensor) -> float:
    """PSNR of what would be saved, at most 100."""
    return min(psnr((image.clamp(0, 1) * 255).round()[None] / 255, clean[None]).item(), 100.0)


def name_bytes(path: Path) -> bytes:
    """A photograph's name without suffix, which on disk may be any bytes."""
    return path.stem.encode("utf-8", "surrogateescape")


def samples(restorer: Restorer, path: Path, crop: int, seed: int) -> Iterator[Sample]:
    """One crop of a photograph in each weather and as it is; nothing of one that is broken or too small."""
    try:
        rgb = read_picture(path).rgb
    except PictureError:
        return
    if min(rgb.shape[1:]) < crop:
        return
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/".encode() + name_bytes(path)))
    for kind in KINDS:
        top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in rgb.shape[1:])
        clean = (rgb[:, top : top + crop, left : left + crop] * 255).round() / 255
        weathers = frozenset({kind}) & frozenset(WEATHERS)
        yield Sample(restorer, kind, with_weather(clean, path.stem, weathers, seed), clean)


def for_tuning(path: Path) -> bool:
    """Whether a photograph is kept for tuning, which holds for no photograph that is held back."""
    return zlib.crc32(name_bytes(path)) % _TUNING_SHARE == 1


def photographs(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Those for references, in an order that mixes the folders, and those for tuning. Raises MofmeError if none."""
    found = [path for folder in folders for path in find_pictures(folder) if not held_back(path)]
    found.sort(key=lambda path: zlib.crc32(name_bytes(path)[::-1]))
    references = [path for path in found if not for_tuning(path)]
    tuning = [path for path in found if for_tuning(path)] or references[-1:]
    references = [path for path in references if path not in tuning]
    if not references:
        raise MofmeError(f"{', '.join(map(str, folders))}: at least two photographs are needed: add clean pictures")
    return references, tuning[:_MOST_TUNING]


def build(
    restorer: Restorer,
    folders: Sequence[Path],
    limit: int | None = None,
    seed: int = 0,
    report: Report = lambda *_: None,
) -> References:
    """References from at most `limit` photographs, with pairs and with choices made on the tuning photographs. Raises
    MofmeError if the net solves too few pairs of them, or if none is left for tuning."""
    paths, tuning = photographs(folders)
    paths = paths[:limit]
    solved: list[tuple[Sample, Tensor]] = []
    judged: list[Sample] = []
    for done, path in enumerate([*paths, *tuning], start=1):
        if done > len(paths):
            judged += samples(restorer, path, TUNING_CROP, seed)
        else:
            for one in samples(restorer, path, CROP, seed):
                if one.decibels >= KEPT if one.kind == "clear" else one.gain >= SOLVED:
                    solved.append((one, own_step(restorer, one)))
        if done >= len(paths) and len(solved) < LARGEST_K:
            raise MofmeError(f"only {len(solved)} pairs were solved: give more photographs, or a better model")
        report(done, len(paths) + len(tuning))
    if not judged:
        raise MofmeError(
            f"none of {len(tuning)} photographs for tuning can be read and has {TUNING_CROP} pixels a side: "
            "give more photographs, or larger ones"
        )
    references = _collect(restorer, solved)
    best, *others = choose(restorer, references, judged)
    return replace(references, choices=best, others=tuple(others))


def own_step(restorer: Restorer, one: Sample, rate: float = Choices.rate) -> Tensor:
    """The way (R) that descent on the sample's own loss goes: the oracle, which knows the clean picture."""
    parts = (one.weathered[None], one.clean[None], torch.ones(1))
    loss_of = pairs_loss(restorer.net, *(part.to(restorer.device) for part in parts))
    with rerouting.frozen(restorer.net):
        return rerouting.descend(one.seen.routing_R, loss_of, rates=(rate, rate * RATE_FALLS_TO)) - one.seen.routing_R


def _collect(restorer: Restorer, solved: Sequence[tuple[Sample, Tensor]]) -> References:
    ones, steps = zip(*solved, strict=True)
    pictures = ([one.weathered for one in ones], [one.clean for one in ones])
    weathered_NCHW, clean_NCHW = ((torch.stack(some) * 255).round().to(torch.uint8) for some in pictures)
    return References(
        model=restorer.name,
        model_sha256=checksum(restorer.net.state_dict()),
        embedding_ND=torch.stack([one.seen.embedding_D for one in ones]),
        routing_NR=torch.stack([one.seen.routing_R for one in ones]),
        step_NR=torch.stack([step_R.cpu() for step_R in steps]),
        kind_N=torch.tensor([KINDS.index(one.kind) for one in ones]),
        gain_N=torch.tensor([0.0 if one.kind == "clear" else one.gain for one in ones]),
        weathered_NCHW=weathered_NCHW,
        clean_NCHW=clean_NCHW,
    )


def moved(restorer: Restorer, one: Sample, shift_R: Tensor) -> float:
    """PSNR in dB of the sample restored with its routing shifted."""
    with rerouting.shifted(restorer.net, shift_R):
        return decibels(restorer(one.weathered).image, one.clean)


def candidates() -> Iterator[Choices]:
    """What is tried on tuning pictures: of every method that needs no pairs as many settings."""
    for k, method in itertools.product(_KS, METHODS[:3]):
        if method == "stored steps":
            yield from (Choices(method, k, stride=stride) for stride in _STRIDES)
        else:
            yield from (Choices(method, k, own=own) for own in _OWN)


def choose(restorer: Restorer, references: References, judged: Sequence[Sample]) -> list[Choices]:
    """The best candidate of every method, that with the highest mean PSNR on the samples first.

    Clear pictures count too, up to 40 dB as in the training loss: none of them may be spoilt.
    """

    def mean(choices: Choices) -> float:
        tried = replace(references, choices=choices, others=())
        total = 0.0
        for one in judged:
            found = find(restorer.net, one.seen, tried, choices.method)
            total += min(moved(restorer, one, found.routing_R - one.seen.routing_R), KEPT)
        return total / len(judged)

    best: dict[Method, Choices] = {}
    for choices in sorted(candidates(), key=mean, reverse=True):
        best.setdefault(choices.method, choices)
    return list(best.values())
