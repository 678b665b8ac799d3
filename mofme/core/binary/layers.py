"""Layers whose weights are one bit in the forward and in the backward pass, and any net made of such layers."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mofme.core.binary.sign import sign, stochastic_sign


class BinaryWeights:
    """What binary layers share: a real `weight` in [-1, 1] gathers the gradients, its sign does the work.

    `stochastic` draws the signs anew in every training pass; in eval mode the signs are deterministic, unless
    `real_at_test` keeps the real weights (options 1 and 2 of the paper's section 2.6). `scale` multiplies each output
    by its own number, for nets without a normalisation that would do so; None for none (as in the paper).
    """

    weight: Tensor
    scale: nn.Parameter | None
    training: bool
    stochastic: bool = False
    real_at_test: bool = False

    def working_weight(self) -> Tensor:
        """The weight as it is used now."""
        if self.training:
            return stochastic_sign(self.weight) if self.stochastic else sign(self.weight)
        return self.weight if self.real_at_test else sign(self.weight)


class BinaryLinear(BinaryWeights, nn.Linear):
    """(..., D) -> (..., F) with weights of -1 and +1."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, stochastic: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        nn.init.uniform_(self.weight, -1, 1)
        self.stochastic = stochastic
        self.scale = None

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.working_weight())
        if self.scale is not None:
            y = y * self.scale
        return y if self.bias is None else y + self.bias


class BinaryConv2d(BinaryWeights, nn.Conv2d):
    """(B, D, H, W) -> (B, F, H', W') with weights of -1 and +1; takes what `nn.Conv2d` takes."""

    def __init__(self, *args: object, stochastic: bool = False, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        nn.init.uniform_(self.weight, -1, 1)
        self.stochastic = stochastic
        self.scale = None

    def forward(self, x: Tensor) -> Tensor:
        y = self._conv_forward(x, self.working_weight(), None)
        if self.scale is not None:
            y = y * self.scale[:, None, None]
        return y if self.bias is None else y + self.bias[:, None, None]


def binarise(model: nn.Module, keep: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Replace every linear and convolution layer of a trained net by a binary one, in place; returns their names.

    Layers whose dotted name `keep` accepts stay as they are. Each output is scaled by the mean magnitude of the weights
    it replaces (XNOR-Net, Rastegari et al. 2016, Eq. 6), and the real weights keep their proportions in [-1, 1].
    """
    chosen = [
        (name, layer)
        for name, layer in model.named_modules()
        if type(layer) in (nn.Linear, nn.Conv2d) and not keep(name)
    ]
    for name, layer in chosen:
        _replace(model, name, _binary_twin(layer))
    return [name for name, _ in chosen]


def binary_layers(model: nn.Module) -> Iterator[tuple[str, BinaryLinear | BinaryConv2d]]:
    """Every binary layer with its dotted name."""
    for name, layer in model.named_modules():
        if isinstance(layer, BinaryLinear | BinaryConv2d):
            yield name, layer


def unbinarise(model: nn.Module) -> None:
    """Replace every binary layer by an ordinary one that computes the same, in place: its signs times their scales.

    It costs what a layer of real weights costs, no more and no less.
    """
    for name, layer in list(binary_layers(model)):
        _replace(model, name, _real_twin(layer))


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


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, layer)


def _linear_arguments(layer: nn.Linear) -> tuple[int, int, bool]:
    return layer.in_features, layer.out_features, layer.bias is not None


def _convolution_arguments(layer: nn.Conv2d) -> tuple[Any, ...]:
    return (
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
    )


@torch.no_grad()
def _real_twin(layer: BinaryLinear | BinaryConv2d) -> nn.Linear | nn.Conv2d:
    twin: nn.Linear | nn.Conv2d
    if isinstance(layer, BinaryLinear):
        twin = nn.Linear(*_linear_arguments(layer))
    else:
        twin = nn.Conv2d(*_convolution_arguments(layer))
    twin = twin.to(layer.weight)
    weight = layer.working_weight()
    if layer.scale is not None:
        weight = weight * layer.scale.view(-1, *[1] * (weight.ndim - 1))
    twin.weight.copy_(weight)
    if twin.bias is not None and layer.bias is not None:
        twin.bias.copy_(layer.bias)
    return twin.train(layer.training)


def _binary_twin(layer: nn.Linear | nn.Conv2d) -> BinaryLinear | BinaryConv2d:
    twin: BinaryLinear | BinaryConv2d
    if isinstance(layer, nn.Linear):
        twin = BinaryLinear(*_linear_arguments(layer))
    else:
        twin = BinaryConv2d(*_convolution_arguments(layer))
    twin = twin.to(layer.weight)
    with torch.no_grad():
        magnitude = layer.weight.abs().flatten(1)
        twin.weight.copy_(layer.weight / magnitude.max().clamp_min(1e-12))
        twin.scale = nn.Parameter(magnitude.mean(1))
        if layer.bias is not None and twin.bias is not None:
            twin.bias.copy_(layer.bias)
    return twin.train(layer.training)
