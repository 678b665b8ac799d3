"""The parts that every net here is built from. Feature maps are (B, C, H, W), channels_last in memory."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts import FeatureModulatedExperts, FeedForward, FeedForwardExperts, GeneratedModulationExperts
from mofme.core.moe import MoE
from mofme.core.routers import AttentionRouter, LinearRouter, MixtureOfRouters
from mofme.core.routing import Router
from mofme.core.uncertainty import UncertaintyRouter

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
_PASSES = 8  # the paper does not say how many


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
    router = _router(kind, dim, num_experts, top_k=min(4, num_experts))
    experts = GeneratedModulationExperts if kind == "generated" else FeatureModulatedExperts
    return MoE(router, experts(dim, hidden, num_experts))


def _router(kind: FeedForwardKind, dim: int, num_experts: int, top_k: int) -> Router:
    match kind:
        case "mofme-linear":
            return LinearRouter(dim, num_experts, top_k)
        case "mofme-attention":
            return AttentionRouter(dim, num_experts, top_k)
        case "mofme-mixture":
            return MixtureOfRouters(dim, num_experts, top_k)
        case "mofme-sampled":
            return UncertaintyRouter(dim, num_experts, top_k, samples=_PASSES)
        case _:
            return UncertaintyRouter(dim, num_experts, top_k)


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
