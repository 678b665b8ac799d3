"""Making a reference set from photographs: pairs that the net solves, and how descent would have routed them better.

Photographs that training holds back are left for measuring, and 1 in 20 of the others for tuning, by name alone.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mofme.core.rerouting import descend, frozen
from mofme.core.weights import checksum
from mofme.errors import MofmeError
from mofme.vision.datasets import held_back
from mofme.vision.picture.file import find_pictures
from mofme.vision.rerouting.references import KINDS, Choices, References
from mofme.vision.rerouting.rerouter import RATE_FALLS_TO, pairs_loss
from mofme.vision.rerouting.samples import KEPT, Sample, name_bytes, samples
from mofme.vision.rerouting.tuning import LARGEST_K, choose
from mofme.vision.restorer import Restorer

CROP = 96
TUNING_CROP = 128
SOLVED = 1.0  # dB gained at least
_TUNING_SHARE = 20
_MOST_TUNING = 20

Report = Callable[[int, int], None]


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
    restorer: Restorer, folders: Sequence[Path], limit: int | None = None, seed: int = 0, report: Report | None = None
) -> References:
    """References from at most `limit` photographs, with pairs and with choices made on the tuning photographs.

    Raises MofmeError if the net solves too few pairs of them, or if none is left for tuning.
    """
    paths, tuning = photographs(folders)
    paths = paths[:limit]
    solved: list[tuple[Sample, Tensor]] = []
    for done, path in enumerate(paths):
        for one in samples(restorer, path, CROP, seed):
            if one.decibels >= KEPT if one.kind == "clear" else one.gain >= SOLVED:
                solved.append((one, own_step(restorer, one)))
        if report:
            report(done + 1, len(paths) + len(tuning))
    if len(solved) < LARGEST_K:
        raise MofmeError(f"only {len(solved)} pairs were solved: give more photographs, or a better model")
    references = _collect(restorer, solved)
    judged = []
    for done, path in enumerate(tuning):
        judged += list(samples(restorer, path, TUNING_CROP, seed))
        if report:
            report(len(paths) + done + 1, len(paths) + len(tuning))
    if not judged:
        raise MofmeError(
            f"none of {len(tuning)} photographs for tuning can be read and has {TUNING_CROP} pixels a side: "
            "give more photographs, or larger ones"
        )
    best, *others = choose(restorer, references, judged)
    return replace(references, choices=best, others=tuple(others))


def own_step(restorer: Restorer, one: Sample, rate: float = Choices.rate) -> Tensor:
    """The way (R) that descent on the sample's own loss goes: the oracle, which knows the clean picture."""
    device = restorer.device
    loss_of = pairs_loss(
        restorer.net, one.weathered[None].to(device), one.clean[None].to(device), torch.ones(1, device=device)
    )
    with frozen(restorer.net):
        return descend(one.seen.routing_R, loss_of, rates=(rate, rate * RATE_FALLS_TO)) - one.seen.routing_R


def _collect(restorer: Restorer, solved: Sequence[tuple[Sample, Tensor]]) -> References:
    def as_bytes(pictures: Sequence[Tensor]) -> Tensor:
        return (torch.stack(list(pictures)) * 255).round().to(torch.uint8)

    ones = [one for one, _ in solved]
    return References(
        model=restorer.name,
        model_sha256=checksum(restorer.net.state_dict()),
        embedding_ND=torch.stack([one.seen.embedding_D for one in ones]),
        routing_NR=torch.stack([one.seen.routing_R for one in ones]),
        step_NR=torch.stack([step_R.cpu() for _, step_R in solved]),
        kind_N=torch.tensor([KINDS.index(one.kind) for one in ones]),
        gain_N=torch.tensor([0.0 if one.kind == "clear" else one.gain for one in ones]),
        weathered_NCHW=as_bytes([one.weathered for one in ones]),
        clean_NCHW=as_bytes([one.clean for one in ones]),
    )
