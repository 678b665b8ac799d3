"""MoFME's feed-forward blocks as 1x1 convolutions over (B, C, H, W), for runtimes that compile a fixed graph.

A graph of tokens, with layer norm, sorting and scattering, keeps such a runtime busy with moving data between layouts.
Here all is pointwise products, convolutions and maxima; what is constant is folded into their weights. The same numbers
come out, but for rounding, and for scores that are exactly equal at the last place: then all of those stay.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts import FeatureModulatedExperts
from mofme.core.moe import MoE
from mofme.core.uncertainty import RIDGE, TINY, UncertaintyRouter
from mofme.vision.nets.unet import FeedForwardBlock, RestorationNet

_BELOW_ALL = -2.0  # weights of length 1 lie above


def folded(net: RestorationNet) -> RestorationNet:
    """A copy of `net`, in which every block with MoFME's own router and experts is a FoldedBlock; others stay."""
    net = copy.deepcopy(net).eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, FeedForwardBlock) and isinstance(module.layer, MoE):
            router, experts = module.layer.router, module.layer.experts
            if not (isinstance(router, UncertaintyRouter) and isinstance(experts, FeatureModulatedExperts)):
                continue
            if router.samples is None:
                above, _, last = name.rpartition(".")
                setattr(net.get_submodule(above), last, FoldedBlock(module.norm, router, experts))
    return net


class FoldedBlock(nn.Module):
    """FeedForwardBlock around UncertaintyRouter in closed form and FeatureModulatedExperts, to run, not to train.

    `uncertainty` is that of the latest run, (B, 1, H, W).
    """

    uncertainty: Tensor

    def __init__(self, norm: nn.LayerNorm, router: UncertaintyRouter, experts: FeatureModulatedExperts) -> None:
        super().__init__()
        score_EC = router.score.weight.detach()
        num_experts, channels = score_EC.shape
        variance_EC = router.dropout / (1 - router.dropout) * score_EC.square()
        network = experts.feed_forward
        self.top_k = router.top_k
        self.eps = norm.eps
        self.gain = nn.Parameter(norm.weight.detach()[:, None, None].clone())
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None].clone())
        self.less_mean = _pointwise(torch.eye(channels) - 1 / channels)
        # Means and sums come out in every channel: no runtime has to spread one channel over the others.
        self.mean = _pointwise(torch.full((channels, channels), 1 / channels))
        self.score = _pointwise(score_EC - score_EC.mean(dim=0))
        self.variance = _pointwise(variance_EC)
        self.noise = _pointwise(variance_EC.mean(dim=0).expand(num_experts, -1))
        self.sum = _pointwise(torch.ones(num_experts, num_experts))
        self.gamma = _pointwise(experts.gamma_ED.detach().T)
        self.beta = _pointwise(experts.beta_ED.detach().T)
        self.expand = _pointwise(network.expand.weight.detach(), network.expand.bias)
        self.contract = _pointwise(network.contract.weight.detach(), network.contract.bias)

    def forward(self, x: Tensor) -> Tensor:
        centred = self.less_mean(x)
        normed = centred * (self.mean(centred * centred) + self.eps).rsqrt() * self.gain + self.bias
        squared = normed * normed
        score, noise = self.score(normed), self.noise(squared)
        calibrated = score / (self.variance(squared) / noise.clamp_min(TINY) + RIDGE)
        weights = calibrated * (self.sum(calibrated * calibrated) + TINY).rsqrt()
        weights = weights * (weights >= self._kth_largest(weights)).to(weights.dtype)
        modulated = self.beta(weights) + normed * self.gamma(weights)
        self.uncertainty = _uncertainty(noise[:, :1], self.sum(score * score)[:, :1] / score.shape[1])
        y: Tensor = x + self.contract(F.gelu(self.expand(modulated)))
        return y

    def _kth_largest(self, weights: Tensor) -> Tensor:
        for _ in range(self.top_k - 1):
            weights = weights.masked_fill(weights >= weights.amax(dim=1, keepdim=True), _BELOW_ALL)
        return weights.amax(dim=1, keepdim=True)


def _uncertainty(variance: Tensor, spread: Tensor) -> Tensor:
    noise, signal = (variance + TINY).sqrt(), (spread + TINY).sqrt()
    return noise / (noise + signal)


def _pointwise(weight_OI: Tensor, bias_O: Tensor | None = None) -> nn.Conv2d:
    layer = nn.Conv2d(weight_OI.shape[1], weight_OI.shape[0], 1, bias=bias_O is not None)
    layer.weight = nn.Parameter(weight_OI[..., None, None].clone())
    if bias_O is not None:
        layer.bias = nn.Parameter(bias_O.detach().clone())
    return layer
