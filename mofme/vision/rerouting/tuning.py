"""What is chosen on tuning pictures: method and settings, among those that need no pairs at use."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from mofme.core.rerouting import shifted
from mofme.vision.rerouting.references import METHODS, Choices, Method, References
from mofme.vision.rerouting.rerouter import find
from mofme.vision.rerouting.samples import KEPT, Sample, decibels
from mofme.vision.restorer import Restorer


def moved(restorer: Restorer, one: Sample, shift_R: Tensor) -> float:
    """PSNR in dB of the sample restored with its routing shifted."""
    with shifted(restorer.net, shift_R):
        return decibels(restorer(one.weathered).image, one.clean)


_KS = (5, 20)
LARGEST_K = max(_KS)
_OWN = (0.25, 0.5, 0.75, 0.9)
_STRIDES = (0.25, 0.5, 1.0, 2.0)


def candidates() -> Iterator[Choices]:
    """What is tried on tuning pictures: of every method that needs no pairs as many settings."""
    for k, method in itertools.product(_KS, METHODS[:3]):
        match method:
            case "stored steps":
                yield from (Choices(method, k, stride=stride) for stride in _STRIDES)
            case _:
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

    best: dict[Method, tuple[float, Choices]] = {}
    for choices in candidates():
        reached = mean(choices)
        if choices.method not in best or reached > best[choices.method][0]:
            best[choices.method] = reached, choices
    return [choices for _, choices in sorted(best.values(), key=lambda one: -one[0])]
