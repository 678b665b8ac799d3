"""Weights of one bit: BinaryConnect (Courbariaux et al. 2015, arXiv 1511.00363), its layers, and any net made of them.

Real weights w gather the gradients; in the forward and in the backward pass their signs do the work,

    w_b = +1 where w >= 0, else -1 (Eq. 1), or drawn: +1 with probability clip((w + 1) / 2, 0, 1) (Eq. 2 and 3),

and the gradient of w_b goes to w as it is (straight through). `core/weights.py` stores eight of them in a byte.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _StraightThrough(torch.autograd.Function):
    """The signs of `of`, through which the gradient passes to w as it is."""

    @staticmethod
    def forward(ctx: object, w: Tensor, of: Tensor) -> Tensor:
        # Several times faster than a comparison and a choice.
        return torch.copysign(torch.ones((), dtype=of.dtype, device=of.device), of)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def sign(w: Tensor) -> Tensor:
    """+1 where w >= 0, -1 elsewhere (Eq. 1); the gradient passes straight through to w."""
    return _StraightThrough.apply(w, w.detach() + 0.0)  # type: ignore[no-untyped-call]  # -0.0 + 0.0 is +0.0


def stochastic_sign(w: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability clip((w + 1) / 2, 0, 1), else -1 (Eq. 2 and 3); the gradient passes straight through to w."""
    chance = torch.rand(w.shape, dtype=w.dtype, device=w.device, generator=generator)
    # 1 - chance <= (w + 1) / 2 where 2 chance + w - 1 >= 0: fewer passes over memory, and these take the time.
    return _StraightThrough.apply(w, chance.mul_(2).add_(w.detach() - 1))  # type: ignore[no-untyped-call]


def clip_weights(weights: Iterable[Tensor]) -> None:
    """Bring real weights back to [-1, 1] in place after a step: further out they would change nothing (section 2.4)."""
    with torch.no_grad():
        for weight in weights:
            weight.clamp_(-1, 1)


def glorot_scale(weight: Tensor) -> float:
    """What the learning rate of a weight is multiplied by: 1 / sqrt(1.5 / (fan in + fan out)) (section 2.6).

    Real weights move in [-1, 1] however large the layer, where Glorot would draw them far smaller.
    """
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    return 1 / (1.5 / (fan_in + fan_out)) ** 0.5


class BinaryWeights:
    """What binary layers share: a real `weight` in [-1, 1] gathers the gradients, its sign does the work.

    `stochastic` draws the signs anew in every training pass; in eval mode the signs are deterministic, unless
    `real_at_test` keeps the real weights (options 1 and 2 of the paper's section 2.6). `scale` multiplies each output
    by its own number, for nets without a normalisation that would do so; None for none (as in the paper).
    """

    weight: Tensor
    bias: Any
    scale: nn.Parameter | None
    training: bool
    stochastic: bool
    real_at_test: bool = False

    def _begin(self, stochastic: bool) -> None:
        nn.init.uniform_(self.weight, -1, 1)
        self.stochastic = stochastic
        self.scale = None

    def working_weight(self) -> Tensor:
        """The weight as it is used now."""
        if self.training:
            return stochastic_sign(self.weight) if self.stochastic else sign(self.weight)
        return self.weight if self.real_at_test else sign(self.weight)

    def _finish(self, y: Tensor, *axes: int) -> Tensor:
        if self.scale is not None:
            y = y * self.scale.view(-1, *axes)
        return y if self.bias is None else y + self.bias.view(-1, *axes)


class BinaryLinear(BinaryWeights, nn.Linear):
    """(..., D) -> (..., F) with weights of -1 and +1."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, stochastic: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self._begin(stochastic)

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(F.linear(x, self.working_weight()))


class BinaryConv2d(BinaryWeights, nn.Conv2d):
    """(B, D, H, W) -> (B, F, H', W') with weights of -1 and +1; takes what `nn.Conv2d` takes."""

    def __init__(self, *args: object, stochastic: bool = False, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._begin(stochastic)

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(self._conv_forward(x, self.working_weight(), None), 1, 1)


def binary_layers(model: nn.Module) -> Iterator[tuple[str, BinaryLinear | BinaryConv2d]]:
    """Every binary layer with its dotted name."""
    for name, layer in model.named_modules():
        if isinstance(layer, BinaryLinear | BinaryConv2d):
            yield name, layer


def binarise(model: nn.Module, keep: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Replace every linear and convolution layer of a trained net by a binary one, in place; returns their names.

    Layers whose dotted name `keep` accepts stay as they are. Each output is scaled by the mean magnitude of the weights
    it replaces (XNOR-Net, Rastegari et al. 2016, arXiv 1603.05279, Eq. 6), and the real weights keep their proportions
    in [-1, 1].
    """
    chosen = [
        (name, layer)
        for name, layer in model.named_modules()
        if type(layer) in (nn.Linear, nn.Conv2d) and not keep(name)
    ]
    for name, layer in chosen:
        magnitude = layer.get_parameter("weight").detach().abs()
        binary = _replace(model, name, (BinaryLinear, BinaryConv2d), layer.weight / magnitude.max().clamp_min(1e-12))
        binary.scale = nn.Parameter(magnitude.flatten(1).mean(1))
    return [name for name, _ in chosen]


def unbinarise(model: nn.Module) -> None:
    """Replace every binary layer by an ordinary one that computes the same, in place: its signs times their scales.

    It costs what a layer of real weights costs, no more and no less.
    """
    for name, layer in list(binary_layers(model)):
        weight = layer.working_weight()
        if layer.scale is not None:
            weight = weight * layer.scale.view(-1, *[1] * (weight.ndim - 1))
        _replace(model, name, (nn.Linear, nn.Conv2d), weight)


@torch.no_grad()
def recalibrate(model: nn.Module, batches: list[Tensor]) -> None:
    """Measure the statistics of every batch normalisation anew, under the weights that are used at test time.

    A net trained with drawn signs meets other sums when its signs are fixed.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    was_training = model.training
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


@torch.no_grad()
def _replace(model: nn.Module, name: str, kinds: tuple[type[nn.Linear], type[nn.Conv2d]], weight: Tensor) -> nn.Module:
    """Put a new layer, of one of these kinds and with this weight, where that of this name is; returns it."""
    layer: Any = model.get_submodule(name)
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        new: Any = kinds[0](layer.in_features, layer.out_features, has_bias)
    else:
        shape = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation
        new = kinds[1](*shape, layer.groups, has_bias, layer.padding_mode)
    new.to(layer.weight).weight.copy_(weight)
    if has_bias:
        new.bias.copy_(layer.bias)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new.train(layer.training))
    return new
