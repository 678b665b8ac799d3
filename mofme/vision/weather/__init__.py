"""Synthetic bad weather on clean photographs: batched, seeded, on any device, from no data files."""

from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations

import torch
from torch import Tensor

from mofme.vision.weather.falling import add_any_rain, add_any_snow, add_rain, add_snow
from mofme.vision.weather.haze import add_haze
from mofme.vision.weather.particles import Draw, on_some, per_picture
from mofme.vision.weather.raindrop import add_any_drops, add_raindrops

# In training: how many pictures have one weather alone, and how many none; the others have two.
_SHARES = {"rain": 0.23, "snow": 0.21, "raindrop": 0.23, "haze": 0.19}
_CLEAN_SHARE = 0.08
WEATHERS = tuple(_SHARES)

Add = Callable[[Tensor, Draw], Tensor]

# What `synthesize` draws with in training.
TRAINED: Mapping[str, Add] = {"raindrops": add_any_drops, "rain": add_any_rain, "snow": add_any_snow}


@dataclass(frozen=True)
class Weathered:
    """`image` (B,3,H,W) in [0,1]; `labels` (B,4), 1 where that one of WEATHERS is present, else 0."""

    image: Tensor
    labels: Tensor


def synthesize(
    clean: Tensor,
    weathers: Sequence[frozenset[str] | str],
    generator: torch.Generator,
    raindrops: Add = add_raindrops,
    rain: Add = add_rain,
    snow: Add = add_snow,
) -> Weathered:
    """Put weather on `clean` (B,3,H,W), float in [0,1]: for each picture a name of WEATHERS or a set of them.

    An empty set returns that picture bit for bit. `raindrops`, `rain` and `snow` draw these: as results have them, or
    as TRAINED does, with more of what photographs show. The result depends on the generator's state, the batch, the
    weathers and these only. Raises ValueError for an unknown name or a wrong count.
    """
    wanted = [frozenset({names}) if isinstance(names, str) else names for names in weathers]
    if len(wanted) != len(clean):
        raise ValueError(f"{len(clean)} pictures need as many sets of weathers, got {len(wanted)}")
    unknown = frozenset[str]().union(*wanted) - set(WEATHERS)
    if unknown:
        raise ValueError(f"unknown weather {', '.join(sorted(unknown))}; choose from {', '.join(WEATHERS)}")

    image = torch.as_tensor(clean)
    # From the scene to the lens: the air dims everything behind it, drops on the glass are in front of all.
    for name, add in {"haze": add_haze, "rain": rain, "snow": snow, "raindrop": raindrops}.items():
        image = on_some(image, [name in names for names in wanted], add, generator)
    image = on_some(image, [bool(names) for names in wanted], _photograph, generator)
    labels = [[float(name in names) for name in WEATHERS] for names in wanted]
    return Weathered(image, torch.tensor(labels, device=image.device).reshape(-1, len(WEATHERS)))


def random_weathers(batch: int, generator: torch.Generator) -> list[frozenset[str]]:
    """The training mixture: mostly one weather a picture, 8 % clean, 6 % two at once."""
    values = torch.rand(batch, 2, generator=generator, device=generator.device).tolist()
    pairs = [frozenset(pair) for pair in combinations(WEATHERS, 2)]
    others = [*(frozenset({name}) for name in WEATHERS), frozenset[str]()]
    ends = list(accumulate([*_SHARES.values(), _CLEAN_SHARE]))
    return [[*others, pairs[int(second * len(pairs))]][bisect(ends, first)] for first, second in values]


def _photograph(image: Tensor, draw: Draw) -> Tensor:
    """Noise of a sensor and the steps of 8 bits, which a restorer must not make visible in a smooth sky."""
    grain = torch.randn(image.shape, generator=draw.generator, device=draw.generator.device).to(image.device)
    return ((image + per_picture(draw.uniform(0, 2 / 255)) * grain) * 255).round() / 255
