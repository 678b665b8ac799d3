"""What a restorer learns from: scenes in bad weather and without, of several kinds, each with a share of its own.

A scene is larger than what is trained on: weather is put on a canvas, several crops are cut from it, and the canvas's
thumbnail goes with each of them, as a whole picture's goes with its tiles. A context learned on the crop's own
thumbnail misleads the net on whole pictures (5 of 50 of Rain100L came out darker than they went in).
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.errors import MofmeError
from mofme.vision.datasets import Pair, drawn_by_size, load_clean, load_haze, load_pair_sets
from mofme.vision.nets.unet import CONTEXT_SIZE
from mofme.vision.weather import TRAINED, WEATHERS, random_weathers, synthesize
from mofme.vision.weather.camera import add_distractors, photograph
from mofme.vision.weather.haze import add_haze, koschmieder
from mofme.vision.weather.particles import Draw, on_some, per_picture

_GRID = 16  # of the sides of a canvas: whole blocks of JPEG
_AT_ONCE = {"cuda": 8}  # scenes: a GPU makes several in about the time of one
_CPU = torch.device("cpu")
_NONE: Mapping[Path, float] = MappingProxyType({})

Size = tuple[int, int]


@dataclass(frozen=True)
class Dice:
    """`choices` on the CPU draws which picture and which part of it; `weather` draws on the device of the pictures."""

    choices: torch.Generator
    weather: torch.Generator

    def roll(self) -> float:
        """Uniform in [0, 1)."""
        return torch.rand((), generator=self.choices).item()


class Scenes(NamedTuple):
    """Pictures (B, 3, H, W) in [0, 1]; labels (B, 4) as of `synthesize`, NaN where nobody knows the weather."""

    weathered: Tensor
    clean: Tensor
    labels: Tensor


class Batch(NamedTuple):
    """Crops (N, 3, S, S) of scenes, their labels (N, 4), thumbnails (N, 3, 64, 64) of the scenes' weathered pictures,
    and `informed` (N,): 1, or 0 where the net is to do without knowing the whole."""

    weathered: Tensor
    clean: Tensor
    labels: Tensor
    thumbnails: Tensor
    informed: Tensor


@dataclass(frozen=True)
class Source:
    """Scenes of a kind, and how often there are any, beside the shares of the other sources.

    `pictures` (C, H, W) are uint8; `make` gets parts of them (B, C, H, W) in [0, 1]. `photographed` is the share of the
    scenes that a camera takes.
    """

    share: float
    pictures: Sequence[Tensor]
    make: Callable[[Tensor, Dice], Scenes]
    photographed: float = 1.0

    def scenes(self, count: int, size: Size, dice: Dice) -> Scenes:
        return self.make(_canvases(self.pictures, count, size, dice), dice)


def synthesized(clean: Tensor, dice: Dice) -> Scenes:
    """Weather by code on clean photographs, with all its looks; drops mostly as lenses."""
    clean = _some_dull(add_distractors(clean, dice.weather), 0.12, dice)
    result = synthesize(clean, random_weathers(len(clean), dice.weather), dice.weather, **TRAINED)
    return Scenes(result.image, clean, result.labels)


def hazed(scene: Tensor, dice: Dice) -> Scenes:
    """Haze over the true depth of a scene, whose fourth channel is the transmission t: t ** g * c for any density g, at
    times in patches as of smoke, and at times with an even veil c on top."""
    clean, transmission = scene.split((3, 1), 1)
    draw = Draw(dice.weather, len(clean), clean.device)
    density = torch.exp(draw.uniform(math.log(0.4), math.log(2.5)))
    # Even veils are seldom: of them the net learns to darken dull walls and overcast roads.
    veil = torch.where(draw.chance(0.12), draw.uniform(0.5, 1), 1.0)
    size = (clean.shape[-2], clean.shape[-1])
    patches = 1 + per_picture(draw.uniform(0, 1.6) * draw.chance(0.4)) * (draw.smooth(size, (2, 4, 8)) - 0.5)
    transmission = transmission.clamp_min(0.02) ** (per_picture(density) * patches) * per_picture(veil)
    strength = torch.where(draw.chance(0.3), 0.13, 0.04)
    tint = (strength * draw.uniform(-1, 1))[:, None] * torch.tensor([1.0, 0.2, -1.0], device=clean.device)
    airlight = (draw.uniform(0.55, 1)[:, None] + tint + draw.uniform(-0.01, 0.01, 3)).clamp(0, 1)
    hazy = koschmieder(clean, transmission.clamp_min(0.05), airlight[:, :, None, None])
    return Scenes(hazy, clean, _labels(clean, "haze"))


def paired(weather: str, pair: Tensor, dice: Dice) -> Scenes:
    """Pairs made elsewhere, (B, 6, H, W), in the weather that is known to be on them, if it is one of ours; what else
    is, nobody knows, unless they are `clean`."""
    weathered, clean = pair.split((3, 3), 1)
    labels = _labels(clean, weather)
    return Scenes(weathered, clean, labels if weather == "clean" else labels.masked_fill(labels == 0, torch.nan))


def rained_on(layers: Sequence[Tensor], clean: Tensor, dice: Dice) -> Scenes:
    """Real streaks on clean photographs: what a teacher took out of photographs of rain, at times under a haze.

    The teacher leaves the veil of a downpour, so the veil comes from the haze.
    """
    clean = _some_dull(add_distractors(clean, dice.weather), 0.12, dice)
    draw = Draw(dice.weather, len(clean), clean.device)
    veiled = on_some(clean, draw.chance(0.4).tolist(), add_haze, dice.weather)
    size = (clean.shape[-2], clean.shape[-1])
    streaks = _canvases(layers, len(clean), size, dice) * per_picture(draw.uniform(0.7, 1.6))
    # On a bright ground streaks show less, as light does.
    rainy = veiled + streaks * (1 - veiled * per_picture(draw.rand()))
    labels = _labels(clean, "rain")
    labels[:, WEATHERS.index("haze")] = torch.nan
    return Scenes(rainy.clamp(0, 1), clean, labels)


def untouched(clean: Tensor, dice: Dice) -> Scenes:
    """Nothing to do: clean photographs, some of them out of focus, in dull light, or of few colours."""
    clean = _some_dull(add_distractors(clean, dice.weather), 0.5, dice)
    return Scenes(clean, clean, _labels(clean))


def sources_of(
    clean: Sequence[Path],
    *,
    pairs: Mapping[Path, float] = _NONE,
    haze: Mapping[Path, float] = _NONE,
    rain_layers: Mapping[Path, float] = _NONE,
    identity: float = 0.0,
    device: torch.device = _CPU,
) -> list[Source]:
    """The kinds of scenes that folders give, each with its share, their pictures in the memory of `device`.

    Sets of pairs that are called as a weather, such as `rain/`, are known to show it, and those called `clean/` none.

    `identity` is the share of scenes with nothing to do; synthesized weather has what is left.
    Raises MofmeError for unusable folders, and if nothing is left.
    """
    given = [*pairs.values(), *haze.values(), *rain_layers.values(), identity]
    if min(given) < 0 or sum(given) >= 1:
        raise MofmeError(
            f"the shares of pairs, haze, rain layers and identity scenes add up to {sum(given):g}, not to 0...1"
        )
    pictures = [picture.to(device) for picture in load_clean(clean, validation=False)]
    sources = [Source(1 - sum(given), pictures, synthesized), Source(identity, pictures, untouched)]
    for folder, share in pairs.items():
        sets = load_pair_sets([folder])
        for name, members in sets.items():
            part = share * len(members) / sum(map(len, sets.values()))
            sources.append(Source(part, [torch.cat(pair).to(device) for pair in members], partial(paired, name)))
    for folder, share in haze.items():
        scenes = [torch.cat(scene).to(device) for scene in load_haze(folder)]
        # What a camera does to tones teaches to clear haze less far; without one, haze of real machines stays.
        sources.append(Source(share, scenes, hazed, photographed=0.5))
    for folder, share in rain_layers.items():
        added = (pair.weathered.float() - pair.clean for pair in _pairs(folder))  # one at a time: they are large
        layers = [layer.clamp(0, 255).to(device, torch.uint8) for layer in added]
        sources.append(Source(share, pictures, partial(rained_on, layers)))
    return [source for source in sources if source.share > 0]


def _pairs(folder: Path) -> list[Pair]:
    return [pair for some in load_pair_sets([folder]).values() for pair in some]


def batches(
    sources: Sequence[Source], canvas: int, crop: int, batch: int, crops_each: int, dice: Dice
) -> Iterator[Batch]:
    """Endless batches of `batch` crops of `crop` pixels, each from another one of the latest canvases.

    Weather on a canvas costs as much as a few crops of training: some `crops_each` crops are cut from each, spread over
    as many batches, so that a batch holds no two of one scene.
    """
    recent: deque[tuple[Scenes, Tensor]] = deque(maxlen=max(batch, crops_each))
    at_once = _AT_ONCE.get(dice.weather.device.type, 1)
    while True:
        for _ in range(0, -(-batch // crops_each) if len(recent) == recent.maxlen else batch, at_once):
            scenes = some_scenes(sources, canvas, crop, dice, at_once)
            thumbnails = F.adaptive_avg_pool2d(scenes.weathered, CONTEXT_SIZE)
            singles = map(Scenes._make, zip(*(part.split(1) for part in scenes), strict=True))
            recent.extend(zip(singles, thumbnails.split(1), strict=True))
        chosen = torch.randperm(len(recent), generator=dice.choices)[:batch].tolist()
        picked = [recent[place][0] for place in chosen]
        crops = [_window(torch.cat((one.weathered, one.clean), 1)[0], (crop, crop), dice) for one in picked]
        weathered, clean = torch.stack(crops).split(3, 1)
        informed = (torch.rand(batch, generator=dice.choices) >= 0.15).float().to(clean.device)
        labels = torch.cat([one.labels for one in picked])
        thumbnails = torch.cat([recent[place][1] for place in chosen])
        yield Batch(weathered, clean, labels, thumbnails, informed)


def some_scenes(sources: Sequence[Source], canvas: int, least: int, dice: Dice, count: int = 1) -> Scenes:
    """Scenes of a source chosen by its share, mostly as a camera takes them: all of one size, about canvas x canvas
    pixels, sides from `least`."""
    size = _canvas_size(canvas, least, dice)
    shares = torch.tensor([float(source.share) for source in sources])
    source = sources[int(torch.multinomial(shares, 1, generator=dice.choices))]
    scenes = source.scenes(count, size, dice)
    if dice.roll() >= source.photographed:
        return scenes
    weathered, clean = photograph(scenes.weathered, scenes.clean, dice.weather)
    return Scenes(weathered, clean, scenes.labels)


def _canvas_size(canvas: int, least: int, dice: Dice) -> Size:
    """Upright, square or landscape, of about canvas x canvas pixels: a thumbnail squeezes pictures of all shapes."""
    aspect = 1.6 ** (2 * dice.roll() - 0.5)  # more landscapes than portraits
    sides = (max(least, canvas / aspect**0.5), max(least, canvas * aspect**0.5))
    height, width = (-(-round(side) // _GRID) * _GRID for side in sides)
    return height, width


def _canvases(pictures: Sequence[Tensor], count: int, size: Size, dice: Dice) -> Tensor:
    """Parts (count, C, *size) in [0, 1] of uint8 pictures, large ones more often, at any scale, mostly upright."""
    return torch.stack([_canvas(one, size, dice) for one in drawn_by_size(pictures, count, dice.choices)])


def _canvas(picture: Tensor, size: Size, dice: Dice) -> Tensor:
    if dice.roll() < 0.05:
        picture = picture.rot90(1 if dice.roll() < 0.5 else 3, dims=(-2, -1))
    if dice.roll() < 0.5:
        picture = picture.flip(-1)
    largest = min(picture.shape[-2] / size[0], picture.shape[-1] / size[1])
    # From the picture's own scale to nearly all of it; a picture smaller than the canvas is enlarged.
    factor = largest ** dice.roll() if largest > 1 else largest
    window = _window(picture, (round(size[0] * factor), round(size[1] * factor)), dice).float() / 255
    if window.shape[-2:] == size:
        return window
    return F.interpolate(window[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def _window(picture: Tensor, size: Size, dice: Dice) -> Tensor:
    height, width = (min(side, whole) for side, whole in zip(size, picture.shape[-2:], strict=True))
    top = int(dice.roll() * (picture.shape[-2] - height + 1))
    left = int(dice.roll() * (picture.shape[-1] - width + 1))
    return picture[:, top : top + height, left : left + width]


def _some_dull(clean: Tensor, share: float, dice: Dice) -> Tensor:
    """What is dull stays dull, in bad weather too: else rain before a grey wall is taken for haze."""
    dull = Draw(dice.weather, len(clean), clean.device).chance(share).tolist()
    return on_some(clean, dull, _of_few_colours, dice.weather)


def _of_few_colours(clean: Tensor, draw: Draw) -> Tensor:
    """A wall, a wood, a road on an overcast day: all of about one colour, or grey, of little contrast, and no haze,
    which is brighter."""
    mean = clean.mean((-2, -1), keepdim=True)
    colourful = torch.where(draw.chance(0.5), 0.45, 0.12)[:, None] * draw.uniform(-1, 1, 3)
    colour = mean * (1 + colourful)[:, :, None, None] * per_picture(draw.uniform(0.4, 1))
    return (colour + per_picture(draw.uniform(0.45, 0.95)) * (clean - mean)).clamp(0, 1)


def _labels(pictures: Tensor, *present: str) -> Tensor:
    row = [float(name in present) for name in WEATHERS]
    return torch.tensor([row] * len(pictures), device=pictures.device)
