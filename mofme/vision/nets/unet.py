"""The restoration net: a U of three levels at 1/2, 1/4 and 1/8 of the picture, for pictures of any size.

    picture -> unshuffle -> [level 1/2] -> [level 1/4] -> [level 1/8] -> [1/4] -> [1/2] -> gain, offset
    restored = picture * exp(gain) + offset

The gain undoes what weather multiplied (haze), the offset what it added (streaks, flakes, veil). Both start at 0, so
an untrained net returns its input. Feed-forwards stand at 1/4 and 1/8, where a position sees enough to choose experts.
Feature maps are (B, C, H, W), channels_last in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts import FeatureModulatedExperts, FeedForward, FeedForwardExperts, GeneratedModulationExperts
from mofme.core.moe import MoE
from mofme.core.routers import AttentionRouter, LinearRouter, MixtureOfRouters
from mofme.core.routing import Router
from mofme.core.uncertainty import UncertaintyRouter

STRIDE = 8
_MEAN, _STD = 0.45, 0.25
# Adam moves every weight by about the learning rate a step, whatever its gradient. A head of full scale would shake the
# whole picture by more than clean pictures can bear, and the net would settle for doing nothing.
_HEAD_SCALE = 0.1
CONTEXT_SIZE = 64

FeedForwardKind = Literal[
    "dense",
    "moe",
    "moe-top4",
    "mofme",
    "mofme-linear",
    "mofme-sampled",
    "mofme-attention",
    "mofme-mixture",
    "generated",
]
_ROUTERS: Mapping[FeedForwardKind, Callable[[int, int, int], Router]] = {
    "mofme-linear": LinearRouter,
    "mofme-attention": AttentionRouter,
    "mofme-mixture": MixtureOfRouters,
    "mofme-sampled": partial(UncertaintyRouter, samples=8),  # the paper does not say how many
}


def feed_forward(kind: FeedForwardKind, dim: int, hidden: int, num_experts: int) -> nn.Module:
    """The one part in which the nets differ: (..., D) -> (..., D) by one network, by E of them, or by MoFME.

    Two experts of "moe" work on a token, as is usual, and four of all other mixtures. For comparison only: "moe-top4";
    "mofme-linear", "mofme-attention" and "mofme-mixture" have other routers, "mofme-sampled" the uncertainty-aware one
    by dropout passes as in the paper, "generated" modulations generated from the input, as in its authors' code.
    """
    if kind == "dense":
        return FeedForward(dim, hidden)
    if kind in ("moe", "moe-top4"):
        top_k = min(2 if kind == "moe" else 4, num_experts)
        return MoE(LinearRouter(dim, num_experts, top_k), FeedForwardExperts(dim, hidden, num_experts))
    if kind not in get_args(FeedForwardKind):
        raise ValueError(f"feed-forward must be one of {', '.join(get_args(FeedForwardKind))}, got {kind!r}")
    router = _ROUTERS.get(kind, UncertaintyRouter)(dim, num_experts, min(4, num_experts))
    experts = GeneratedModulationExperts if kind == "generated" else FeatureModulatedExperts
    return MoE(router, experts(dim, hidden, num_experts))


class SpatialBlock(nn.Module):
    """Residual block of two dense 3x3 convolutions: near a CPU's peak, where depthwise ones wait for memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return y


class FeedForwardBlock(nn.Module):
    """Pre-norm residual block around a feed-forward that works on each position by itself."""

    def __init__(self, channels: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x_BHWC = x.permute(0, 2, 3, 1)
        return torch.add(x_BHWC, self.layer(self.norm(x_BHWC))).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class NetOutput:
    """`image` (B, 3, H, W), not clamped; `weather_BW` the logits of the weathers it believes it saw."""

    image: Tensor
    weather_BW: Tensor


class RestorationNet(nn.Module):
    """(B, 3, H, W) in [0, 1], H and W multiples of 8 -> NetOutput.

    What a local net cannot know, such as the colour of the haze, comes from `context`: features of the whole picture's
    thumbnail. `forward` takes the picture's own; who cuts a picture into tiles hands every tile that of the whole.
    """

    def __init__(
        self,
        widths: Sequence[int] = (24, 48, 96),
        blocks: Sequence[int] = (2, 2, 4),
        feed_forward: FeedForwardKind = "mofme",
        num_experts: int = 16,
        expansion: int = 2,
        num_weathers: int = 4,
    ) -> None:
        super().__init__()
        half, quarter, eighth = widths
        n_half, n_quarter, n_eighth = blocks

        stage = partial(_stage, kind=feed_forward, num_experts=num_experts, expansion=expansion)
        self.stem = nn.Conv2d(3 * 4, half, 3, padding=1)
        self.encoder_half = nn.Sequential(*(SpatialBlock(half) for _ in range(n_half)))
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.encoder_quarter = stage(quarter, n_quarter)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.context = _Context(eighth)
        self.middle = stage(eighth, n_eighth)
        self.from_eighth = nn.Conv2d(eighth, quarter * 4, 1)
        self.decoder_quarter = stage(quarter, n_quarter)
        self.from_quarter = nn.Conv2d(quarter, half * 4, 1)
        self.decoder_half = nn.Sequential(*(SpatialBlock(half) for _ in range(n_half)))
        self.head = nn.Conv2d(half, 6 * 4, 3, padding=1)
        self.weather = nn.Sequential(nn.Conv2d(eighth, eighth, 1), nn.ReLU(), nn.Conv2d(eighth, num_weathers, 1))
        self._initialise()

    def _initialise(self) -> None:
        """Features of unit scale, quiet residual branches, and a head that changes nothing."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for module in self.modules():
            if isinstance(module, SpatialBlock):
                nn.init.kaiming_normal_(module.conv1.weight, nonlinearity="relu")
                with torch.no_grad():
                    module.conv2.weight.mul_(0.25)
        nn.init.zeros_(self.head.weight)

    def encode_context(self, image: Tensor) -> Tensor:
        """Features of a whole picture (B, 3, any H, any W): (B, 2, C)."""
        context: Tensor = self.context(F.adaptive_avg_pool2d((image - _MEAN) / _STD, CONTEXT_SIZE))
        return context

    def forward(self, image: Tensor, context: Tensor | None = None) -> NetOutput:
        if image.shape[-2] % STRIDE or image.shape[-1] % STRIDE:
            raise ValueError(f"height and width must be multiples of {STRIDE}, got {tuple(image.shape)}")
        if context is None:
            context = self.encode_context(image)

        folded = F.pixel_unshuffle((image - _MEAN) / _STD, 2).contiguous(memory_format=torch.channels_last)
        half = self.encoder_half(self.stem(folded))
        quarter = self.encoder_quarter(self.to_quarter(half))
        # In the precision of the features: a whole picture's context may have been made outside of autocast.
        scale, shift = context[..., None, None].to(quarter.dtype).unbind(1)
        eighth = self.middle(self.to_eighth(quarter) * (1 + scale) + shift)
        quarter = self.decoder_quarter(quarter + F.pixel_shuffle(self.from_eighth(eighth), 2))
        half = self.decoder_half(half + F.pixel_shuffle(self.from_quarter(quarter), 2))
        gain, offset = (F.pixel_shuffle(part, 2) for part in (_HEAD_SCALE * self.head(half)).chunk(2, dim=1))
        return NetOutput(torch.addcmul(offset, image, gain.exp()), self.weather(eighth).mean(dim=(-2, -1)))


def _stage(channels: int, depth: int, kind: FeedForwardKind, num_experts: int, expansion: int) -> nn.Sequential:
    layers = (feed_forward(kind, channels, expansion * channels, num_experts) for _ in range(depth))
    return nn.Sequential(*(nn.Sequential(SpatialBlock(channels), FeedForwardBlock(channels, one)) for one in layers))


class _Context(nn.Module):
    """Thumbnail (B, 3, 64, 64) -> a scale and a shift for each of C channels, (B, 2, C); both start at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((3, 16, 32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.project = nn.Linear(64, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, thumbnail: Tensor) -> Tensor:
        features: Tensor = self.project(self.features(thumbnail).mean(dim=(-2, -1)))
        return features.unflatten(-1, (2, -1))
