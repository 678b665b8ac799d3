"""The one way to restore a picture: the app, the command line, the evaluation and Python users all call `Restorer`."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.core.moe import ObservedRouting, observe_routing
from mofme.core.training import bf16_pays
from mofme.errors import ModelError
from mofme.files import DEFAULT_MODEL
from mofme.vision.models import available_models as available_models
from mofme.vision.models import load_net, load_second, load_tone
from mofme.vision.nets.tone import TONE_SIZE, ToneNet, apply_tone, trust
from mofme.vision.nets.unet import CONTEXT_SIZE, RestorationNet
from mofme.vision.runtime import AUTO, TORCH, Part, fastest_runtime, open_runtime
from mofme.vision.tiling import (
    COARSE_PIXELS,
    FINE_PIXELS,
    Tile,
    enlarged,
    finer,
    pad_to,
    shrunk,
    thumbnail,
    tiles,
    working_copy,
)
from mofme.vision.weather import WEATHERS

DEFAULT_TILE = 768
HALO = 96
_MAP_CELLS = 256
# Some 26 are compiled for every size of picture. oneDNN would keep 1,024, which after 150 small pictures take 723 MB;
# with 64 it is 335 MB, and 10 ms a tile where more than two sizes take turns. Training needs more.
_KERNELS = 64
_REACH = 8  # pixels around one that say how visible it could be: more than a soft edge is wide
_MEMORY = 0.95  # of the frames before in the average: it forgets within about a second
_LIGHT_SIZE = 16  # of the thumbnails whose difference is the light: less than any streak or drop changes
_DARK = (0.31, 0.35)  # ninth deciles of brightness below which all of the light is given back, above which none
_HAZY = (0.5, 0.8)  # probabilities of haze up to which no light was lost to it, and from which all
# Probabilities of the likeliest weather up to which nothing is changed, and from which all is. Few photographs in
# weather are below, and what a net does there is small, but costs clean ones 2 to 4 dB.
_CLEAR = (0.1, 0.3)
_FALLING = (0.3, 0.7)  # of rain or snow, for what is finer than the small copy of a large picture, and for their veil
_ASKED = (0.3, 0.5)  # of haze, from which on a second net is asked, and from which it has to agree
_AGREED = (
    0.6,
    0.85,
)  # of haze by both nets, the mean of their logits, up to which none is believed, and from which all
_OPINION_SIDE = 224  # of the small copy that the second net looks at
_COARSE_SHARE = 0.25  # of the work on a large picture
_HAZE = WEATHERS.index("haze")
_FALLS = [WEATHERS.index(name) for name in ("rain", "snow")]
_BEYOND = 0.5  # what resizing may add to [0, 1]; more is of another range, such as [-1, 1] or [0, 255]
_CUT = 0.1  # mean difference between two frames, of [0, 1], from which on another scene has begun


@dataclass(frozen=True)
class RoutingMap:
    """Where one layer used which expert: mean magnitude of the routing weights, (E, h, w), on a coarse grid."""

    layer: str
    weights_EHW: Tensor

    def shares(self) -> Tensor:
        """Share (E,) of the whole picture's routing weight that each expert carries; sums to 1."""
        total_E = self.weights_EHW.sum(dim=(-2, -1))
        return total_E / total_E.sum()


@dataclass(frozen=True)
class Restoration:
    """A restored picture (3, H, W) in [0, 1], and how it came about.

    `weather` holds the probability of each weather; `uncertainty` (h, w) in [0, 1] the routers' mean uncertainty on a
    coarse grid; `routing` one map a mixture layer, empty unless asked for.
    """

    image: Tensor
    weather: dict[str, float]
    uncertainty: Tensor
    routing: tuple[RoutingMap, ...]
    seconds: float

    @property
    def weather_name(self) -> str:
        """The most likely weather, or "clear" when none is likely."""
        name = max(self.weather, key=self.weather.__getitem__)
        return name if self.weather[name] >= 0.5 else "clear"

    @property
    def mean_uncertainty(self) -> float:
        return self.uncertainty.mean().item()


@dataclass(frozen=True)
class _How:
    """How the net runs over a picture: side of the tiles, with maps of the experts or not, one of many of a size."""

    tile: int
    explain: bool
    is_video: bool


class TemporalSmoother:
    """Exponential moving averages of the estimates on one video, by name; all are begun anew at a cut."""

    def __init__(self) -> None:
        # All that it knows, by name: what is estimated, and the last frame. No tensor is ever changed in place.
        self.state: dict[str, Tensor] = {}

    def see(self, thumbnail: Tensor) -> None:
        """The next frame, made small, (3, h, w) in [0, 1]: estimates from now on are of it."""
        last = self.state.get("frame")
        if last is not None and (thumbnail.shape != last.shape or (thumbnail - last.to(thumbnail)).abs().mean() > _CUT):
            self.state.clear()
        self.state["frame"] = thumbnail

    def mean(self, name: str, estimate: Tensor) -> Tensor:
        """The average up to this frame, of the same shape as what is estimated of it alone."""
        self.state[name] = estimate.lerp(self.state.get(name, estimate).to(estimate), _MEMORY)
        return self.state[name]


class Restorer:
    """Restores pictures of any size with a trained net, tile by tile in bounded memory.

    Where there is a `tone`, a hazy picture's brightness and contrast are mended as a whole at the end; where there is a
    `second` net, haze is only believed, and cleared, as far as both see it.
    `runtime` is what the net runs by: torch, or on a CPU onnx or openvino. Raises ModelError for one that cannot.
    """

    def __init__(
        self,
        net: RestorationNet,
        name: str,
        device: torch.device | str = "cpu",
        tone: ToneNet | None = None,
        runtime: str = TORCH,
        second: RestorationNet | None = None,
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.net = net.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.second = second and second.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tone = tone
        self.runtime = runtime
        if runtime != TORCH and self.device.type != "cpu":
            raise ModelError(f"the runtime {runtime} runs on the CPU, not on {device}: leave it out, or take torch")
        self._run = None if runtime == TORCH else open_runtime(runtime, self.net)

    @classmethod
    def from_pretrained(cls, name: str = DEFAULT_MODEL, device: str = "auto", runtime: str = TORCH) -> Self:
        """Load a shipped model by name, or one that `train` wrote by its folder. Raises ModelError.

        The runtime "auto" is on a CPU the fastest that is installed, by a measurement of seconds that the cache keeps.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KERNELS))  # read when the first net runs
        net, card = load_net(name)
        tone, second = load_tone(name), load_second(name)
        built = cls(net, card.name, device, tone, TORCH if runtime == AUTO else runtime, second)
        return built.fastest() if runtime == AUTO else built

    def fastest(self) -> Self:
        """The same by the runtime that is fastest, of those installed, on a CPU; see `from_pretrained`."""
        if self.device.type != "cpu":
            return self
        by = partial(type(self), self.net, self.name, self.device, self.tone, second=self.second)
        runtime = fastest_runtime(by, self.net)
        return self if runtime == self.runtime else by(runtime)

    @cached_property
    def version(self) -> str:
        """The name, a short checksum of all weights and a runtime other than torch: what restored a picture."""
        checksum = hashlib.sha256()
        nets = [net for net in (self.net, self.tone, self.second) if net is not None]
        for tensor in (tensor for net in nets for tensor in net.state_dict().values()):
            checksum.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        by = "" if self.runtime == TORCH else f" by {self.runtime}"
        return f"{self.name} {checksum.hexdigest()[:8]}{by}"

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        *,
        alpha: Tensor | None = None,
        strength: float = 1.0,
        ensemble: bool = False,
        tile: int | None = None,
        explain: bool = False,
        steady: TemporalSmoother | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Restoration:
        """Restore `image` (3, H, W), RGB in [0, 1], any size from 1 x 1, of any float type and on any device.

        Colours that `alpha` (1, H, W) hides do not count, and come out as they are.
        `strength` blends from the input (0) to the restored picture (1). `ensemble` averages it with what comes of the
        mirror image, in twice the time. `explain` adds maps of the experts, for which torch runs. `tile` is the side in
        pixels of the parts worked on at a time. `steady` remembers the earlier frames of a video, so that its
        brightness does not flicker. `on_progress` is told the share that is done; what it raises stops the work.
        """
        if not isinstance(image, Tensor):
            words = "torch.from_numpy makes one of an array, read_picture(path).rgb of a file"
            raise TypeError(f"a picture is a torch tensor, got {type(image).__name__}: {words}")
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel():
            raise ValueError(f"a picture has the shape (3, height, width), got {tuple(image.shape)}")
        if not image.is_floating_point():
            raise ValueError(f"a picture holds floats in [0, 1], got {image.dtype}")
        low, high = (bound.item() for bound in image.aminmax())
        if not (low >= -_BEYOND and high <= 1 + _BEYOND):  # one NaN would make all of the result NaN
            raise ValueError(f"a picture holds floats in [0, 1], got {low:g} to {high:g}")
        if not 0 <= strength <= 1:
            raise ValueError(f"strength lies between 0 and 1, got {strength}")
        if alpha is not None:
            how = {"strength": strength, "ensemble": ensemble, "tile": tile, "explain": explain, "steady": steady}
            return restore_seen(self, image, alpha, on_progress=on_progress, **how)
        start = time.perf_counter()
        tell = on_progress or (lambda share: None)
        views: tuple[tuple[int, ...], ...] = ((), (-1,)) if ensemble else ((),)  # skies are above, and rain falls
        small = working_copy(image, COARSE_PIXELS)
        first = 1.0 if small is image else _COARSE_SHARE
        whole = thumbnail(small, CONTEXT_SIZE).to(self.device, torch.float32)
        contexts = {view: self.net.encode_context(whole.flip(view)[None]) for view in views}
        if steady is not None:
            steady.see(whole)
            contexts = {view: steady.mean(f"context {view}", one) for view, one in contexts.items()}
        wanted = _How(tile or DEFAULT_TILE, explain, is_video=steady is not None)
        restored, probabilities_W, grid = self._pass(small, contexts, wanted, lambda share: tell(first * share))
        haze, falling = probabilities_W[_HAZE].clone(), probabilities_W[_FALLS].amax()
        doubt = self._doubt(small, haze, falling, steady)
        probabilities_W[_HAZE] *= 1 - doubt
        weather = dict(zip(WEATHERS, probabilities_W.tolist(), strict=True))
        self._mend_tone(small, restored, probabilities_W[_HAZE], steady)
        _keep_light(small, restored, haze, doubt, steady)
        share = strength * _share_of_weather("share", probabilities_W.max(), _CLEAR, steady)
        torch.lerp(small, restored, share, out=restored)
        if small is not image:
            share *= _share_of_weather("fine", falling, _FALLING, steady)
            detail = None
            if share:
                large = working_copy(image, FINE_PIXELS)
                wanted = replace(wanted, explain=False)
                fine, *_ = self._pass(large, contexts, wanted, lambda share: tell(first + (1 - first) * share))
                detail = finer(fine.sub_(large), small.shape[-2:]).mul_(share)
            restored = enlarged(image, small, restored, detail)
            tell(1.0)
        return Restoration(
            image=restored,
            weather=weather,
            uncertainty=grid.uncertainty.cpu(),
            routing=tuple(RoutingMap(layer, weights_EHW.cpu()) for layer, weights_EHW in grid.routing.items()),
            seconds=time.perf_counter() - start,
        )

    def _pass(
        self, image: Tensor, contexts: Mapping[tuple[int, ...], Tensor], how: "_How", tell: Callable[[float], None]
    ) -> tuple[Tensor, Tensor, "_Grid"]:
        """The net on all tiles of a picture (3, H, W), seen in each of the views, with the view's context.

        Returns the restored picture, the probabilities of the weathers (4,) and the coarse maps.
        """
        height, width = image.shape[-2:]
        parts = list(tiles(height, width, how.tile, HALO))
        grid = _Grid(height, width, self.device)
        restored = torch.empty_like(image)
        weather_W = torch.zeros(len(WEATHERS))
        for done, part in enumerate(parts):
            outer = image[:, *part.outer].to(self.device, torch.float32)
            # Padded before it is mirrored: so its coarse grid falls on that of the mirrored picture.
            padded = pad_to(outer)
            result = torch.zeros_like(outer)
            for number, (view, context) in enumerate(contexts.items(), start=1):
                seen = padded.flip(view)[None]
                routing: list[ObservedRouting] = []
                if self._run is None or how.explain:
                    with observe_routing(self.net) as routing, self._precision():
                        output = self.net(seen.contiguous(memory_format=torch.channels_last), context)
                else:
                    output = self._run(seen, context, how.is_video or padded.shape == outer.shape)
                result += output.image[0].flip(view)[:, : outer.shape[-2], : outer.shape[-1]]
                if not view:
                    grid.add(part, routing, padded.shape[-2:], how.explain)
                    for share_11HW in output.uncertainty if isinstance(output, Part) else ():
                        grid.add_uncertainty(part, share_11HW.flatten(), share_11HW.shape[1:], padded.shape[-2:])
                    weather_W += output.weather_BW[0].float().cpu() * image[0, *part.inner].numel()
                tell((done * len(contexts) + number) / (len(parts) * len(contexts)))
            restored[:, *part.inner] = part.crop(result.div_(len(contexts)).clamp_(0, 1)).to(restored)
        return restored, torch.sigmoid(weather_W / (height * width)), grid

    def _doubt(self, image: Tensor, haze: Tensor, falling: Tensor, steady: TemporalSmoother | None) -> Tensor:
        """How little of the haze that the net sees is believed, 0 for all, 1 for none, by its probability and that of
        rain or snow, whose own veil is no haze to the second net."""
        asked = _ramp(haze, _ASKED) * (1 - _ramp(falling, _FALLING))
        if self.second is None or not (asked or steady):
            return torch.tensor(0.0)
        if asked:
            copy = pad_to(shrunk(image, _OPINION_SIDE).to(self.device))[None]
            with self._precision():
                logits_BW = self.second(copy.contiguous(memory_format=torch.channels_last)).weather_BW
            both = torch.sigmoid((torch.logit(haze, eps=1e-6) + logits_BW[0, _HAZE].float().cpu()) / 2)
            asked *= 1 - _ramp(both, _AGREED)
        return asked if steady is None else steady.mean("doubt", asked)

    def _mend_tone(self, image: Tensor, restored: Tensor, haze: Tensor, steady: TemporalSmoother | None) -> None:
        """Give `restored` the gain and offset that are judged right for it, in place, as far as there is haze."""
        trusted = trust(haze)
        if self.tone is None or not (trusted or steady):
            return
        thumbnails = (thumbnail(part, TONE_SIZE)[None].float().cpu() for part in (image, restored))
        tone = trusted * self.tone(*thumbnails)[0]
        if steady is not None:
            tone = steady.mean("tone", tone)
        apply_tone(restored, tone.to(restored), out=restored).clamp_(0, 1)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16_pays(self.device))


def _share_of_weather(
    name: str, probability: Tensor, bounds: tuple[float, float], steady: TemporalSmoother | None
) -> float:
    """How much of a change is kept, for a probability: nothing up to the first of the bounds, all from the second."""
    share = _ramp(probability, bounds)
    return (share if steady is None else steady.mean(name, share)).item()


def _ramp(value: Tensor, bounds: tuple[float, float]) -> Tensor:
    """0 up to the first of the bounds, 1 from the second on."""
    return ((value - bounds[0]) / (bounds[1] - bounds[0])).clamp(0, 1)


def _keep_light(image: Tensor, restored: Tensor, haze: Tensor, doubt: Tensor, steady: TemporalSmoother | None) -> None:
    """Give `restored` the light and the contrast of `image` back, in place, if it is too dark to have been under haze
    or as far as there is doubt about the haze.

    Haze is lit by the day: of 533 scenes under it 10 came out with a ninth decile below 0.33, as dull walls do that
    are taken for haze. What was done is undone as far as one gain for each colour and the light of
    16 x 16 parts tell, as of an even veil: what else was cleared stays.
    """
    if haze <= _HAZY[0] and not doubt and steady is None:
        return
    before, after = (thumbnail(part, TONE_SIZE).float().cpu() for part in (image, restored))
    too_dark = (_DARK[1] - after.mean(dim=0).quantile(0.9)) / (_DARK[1] - _DARK[0])
    share = too_dark.clamp(0, 1) * _ramp(haze, _HAZY)
    if steady is not None:
        share = steady.mean("light", share)
    share = torch.maximum(share, doubt)
    if not share:
        return
    centred, wanted = (part.flatten(1) - part.flatten(1).mean(dim=1, keepdim=True) for part in (after, before))
    gain = ((centred * wanted).sum(dim=1) / centred.square().sum(dim=1).clamp_min(1e-6)).clamp(0.2, 1)[:, None, None]
    light = F.adaptive_avg_pool2d(before - gain * after, _LIGHT_SIZE)[None].to(restored)
    for plane, part, times in zip(restored, light[0], gain.to(restored), strict=True):  # one at a time, to spare memory
        smooth = F.interpolate(part[None, None], plane.shape, mode="bilinear", align_corners=False)[0, 0]
        plane.lerp_(smooth.addcmul_(plane, times), share.to(plane)).clamp_(0, 1)


class _Grid:
    """Collects the tiles' coarse maps into the whole picture's: at most 256 cells a side, of 8 pixels or more.

    On the net's device: a copy from there for every layer and tile would keep it waiting.
    """

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        self.cell = 8
        while max(height, width) > self.cell * _MAP_CELLS:
            self.cell *= 2
        self.size = (-(-height // self.cell), -(-width // self.cell))
        self.uncertainty = torch.zeros(self.size, device=device)
        self.routing: dict[str, Tensor] = {}

    def add(self, tile: Tile, routing: list[ObservedRouting], padded: torch.Size, explain: bool) -> None:
        uncertain: dict[tuple[int, ...], list[Tensor]] = {}
        for observed in routing:
            if observed.decision.uncertainty_T is not None:
                uncertain.setdefault(observed.leading_shape, []).append(observed.decision.uncertainty_T)
            if explain:
                weights_TE = observed.decision.weights_TE.abs()
                empty = self.uncertainty.new_zeros(weights_TE.shape[-1], *self.size)
                target = self.routing.setdefault(observed.layer, empty)
                self._paste(target, tile, weights_TE, observed.leading_shape, padded)
        layers = sum(map(len, uncertain.values()))
        for shape, layers_LT in uncertain.items():  # pooled once for all layers of one resolution
            self.add_uncertainty(tile, torch.stack(layers_LT).sum(dim=0) / layers, shape, padded)

    def add_uncertainty(self, tile: Tile, share_T: Tensor, shape: tuple[int, ...], padded: torch.Size) -> None:
        self._paste(self.uncertainty[None], tile, share_T[:, None], shape, padded)

    def _paste(self, target: Tensor, tile: Tile, values_TC: Tensor, shape: tuple[int, ...], padded: torch.Size) -> None:
        _, rows, columns = shape
        pooled = F.avg_pool2d(
            values_TC.float().T.unflatten(-1, (rows, columns)), 3, stride=1, padding=1, count_include_pad=False
        )
        # Sampled at the centre of each cell that this tile is responsible for.
        cells = []
        for axis, (inner, outer) in enumerate(zip(tile.inner, tile.outer, strict=True), start=1):
            cells.append(slice(-(-inner.start // self.cell), -(-inner.stop // self.cell)))
            centres = torch.arange(cells[-1].start, cells[-1].stop, device=target.device) * self.cell + self.cell // 2
            place = (centres - outer.start) // (padded[0] // rows)
            pooled = pooled.index_select(axis, place.clamp(0, shape[axis] - 1))
        target[:, *cells] += pooled


def fill_hidden(image: Tensor, alpha: Tensor) -> Tensor:
    """`image` (3, H, W) as it is to be looked at: what `alpha` (1, H, W) hides is continued from what is seen.

    A pixel counts as much as it is seen beside its neighbours: edges are continued, evenly transparent pictures stay.
    """
    visible = alpha.to(image)
    around = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
    most = torch.from_numpy(cv2.dilate(alpha[0].float().cpu().numpy(), around)).to(image)
    # Squared: programs round colours that are hardly seen to almost anything.
    weight = (visible / most.clamp_min(1e-9)).square()
    if bool((weight == 1).all()) or not visible.any():
        return image
    return torch.cat([torch.lerp(_continued(plane[None], weight), plane[None], weight) for plane in image])


def restore_seen(
    restorer: Callable[..., Restoration], image: Tensor, alpha: Tensor | None, **settings: Any
) -> Restoration:
    """What `restorer` makes of `image` (3, H, W) when the colours that `alpha` (1, H, W) hides do not count.

    They come out as they are, and soft edges with the change that was made there. Raises ValueError for another size.
    """
    if alpha is not None and alpha.shape != (1, *image.shape[1:]):
        raise ValueError(f"alpha is {tuple(alpha.shape)}, the picture {tuple(image.shape)}")
    if alpha is None or bool((alpha == 1).all()):
        return restorer(image, **settings)
    filled = fill_hidden(image, alpha)
    result = restorer(filled, **settings)
    changed = (image + (result.image - filled)).clamp_(0, 1)
    restored = torch.where(image == filled, result.image, changed)
    return replace(result, image=torch.where(alpha.to(image.device) == 0, image, restored))


def _continued(plane: Tensor, weight: Tensor) -> Tensor:
    """For every pixel of (1, H, W) the mean around it, weighted: near where something near is seen, wider elsewhere."""
    if plane.numel() == 1:
        return plane
    seen, mean = (F.avg_pool2d(one, 2, ceil_mode=True, count_include_pad=False) for one in (weight, plane * weight))
    mean = mean / seen.clamp_min(1e-9)
    weight = (4 * seen).clamp_(max=1)
    coarse = torch.lerp(_continued(mean, weight), mean, weight)
    return F.interpolate(coarse[None], plane.shape[1:], mode="bilinear", align_corners=False)[0]
