"""Test-time re-routing, R2-T2 (arXiv 2502.20395): the routing of one sample moves towards what serves its neighbours.

The model stays as it is. For a sample x with routing weights r, and neighbours x_i of a reference set that the model
solved, gradient descent and kernel regression lower the neighbours' loss under the sample's routing,

    L(r) = sum_i K(x_i, x) loss(f(x_i, r), y_i) / sum_i K(x_i, x),

which the caller hands over as `loss_of(r)`; with the loss of the sample itself in its place they give the oracle.
Our readings: K is Gaussian, as wide as the neighbours are far; a sample is routed by the mean of its tokens' weights,
layer by layer, and moving that mean shifts all tokens alike.

Axis names: N references, k neighbours, S samples, R routing weights of a sample: all experts of all layers in a row.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mofme.core.moe import moe_layers, observe_routing, replace_routing
from mofme.core.routing import RoutingDecision

LossOf = Callable[[Tensor], Tensor]
_MIXES = 11  # shares of the own routing that are tried: 0, 0.1, ..., 1


@dataclass(frozen=True)
class Neighbours:
    """The k references nearest to a sample, nearest first, and the kernel's weights, which sum to 1."""

    index_k: Tensor
    kernel_k: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """The kernel's mean (...) of values (k, ...), a number or a routing for each neighbour."""
        return torch.tensordot(self.kernel_k.to(values), values, dims=1)


def nearest(x_D: Tensor, references_ND: Tensor, k: int = 5) -> Neighbours:
    """Neighbours under a Gaussian kernel, whose width is the mean distance of the k. Raises ValueError for k > N."""
    if not 1 <= k <= len(references_ND):
        raise ValueError(f"between 1 and {len(references_ND)} neighbours can be had, not {k}")
    distance_k, index_k = (references_ND - x_D).norm(dim=-1).topk(k, largest=False)
    width = distance_k.mean().clamp_min(torch.finfo(distance_k.dtype).tiny)
    return Neighbours(index_k, torch.softmax(-(distance_k / width).square() / 2, dim=0))


def descend(routing_R: Tensor, loss_of: LossOf, steps: int = 10, rates: tuple[float, float] = (1e-2, 1e-5)) -> Tensor:
    """Neighbourhood gradient descent: r <- r - rate * grad L(r), the rate falling along a cosine from first to last."""
    for step in range(steps):
        turn = step / max(steps - 1, 1)
        rate = rates[1] + (rates[0] - rates[1]) * (1 + math.cos(math.pi * turn)) / 2
        with torch.enable_grad():
            leaf_R = routing_R.detach().requires_grad_()
            (slope_R,) = torch.autograd.grad(loss_of(leaf_R), leaf_R)
        routing_R = routing_R.detach() - rate * slope_R
    return routing_R


@torch.no_grad()
def regress(routing_R: Tensor, neighbours: Neighbours, references_NR: Tensor, loss_of: LossOf) -> Tensor:
    """Kernel regression: a r + (1 - a) sum_i K r_i / sum_i K, with the a in [0, 1] of the lowest L."""
    other_R = neighbours.mean(references_NR[neighbours.index_k])
    # From the own routing on, so that it stays where nothing is gained.
    mixes = [torch.lerp(routing_R, other_R, part / (_MIXES - 1)) for part in range(_MIXES)]
    return min(mixes, key=lambda mix_R: float(loss_of(mix_R)))


def find_mode(routing_R: Tensor, references_NR: Tensor, k: int = 5, steps: int = 10, own: float = 0.5) -> Tensor:
    """Mode finding: r <- a r + (1 - a) of that average, with neighbours and kernel among the routings themselves.

    It moves to where routings are densest and asks for no loss; `own` is a.
    """
    for _ in range(steps):
        near = nearest(routing_R, references_NR, k)
        routing_R = torch.lerp(near.mean(references_NR[near.index_k]), routing_R, own)
    return routing_R


def routing_of(model: nn.Module, run: Callable[[], object]) -> Tensor:
    """The routing (R) of one sample: the mean weights of its tokens in each MoE layer while `run` runs the model.

    Raises ValueError if `run` leaves one of the model's MoE layers out.
    """
    with torch.no_grad(), observe_routing(model) as observed:
        run()
    means = []
    for layer in layer_sizes(model):
        weights = [one.decision.weights_TE for one in observed if one.layer == layer]
        if not weights:
            raise ValueError(f"the MoE layer {layer!r} was not run")
        means.append(torch.cat(weights).mean(dim=0))
    return torch.cat(means)


def rerouted(model: nn.Module, routing_R: Tensor, samples: int = 1) -> AbstractContextManager[None]:
    """Inside the block the model routes by `routing_R`, through which gradients flow: run `samples` of equal size.

    The weights of all tokens of a layer are shifted, each sample's alike, so that this is the mean of every sample.
    Raises ValueError for another R.
    """
    mean_E = by_layer(model, routing_R)

    def shift(layer: str, decision: RoutingDecision) -> RoutingDecision:
        weights_STE = decision.weights_TE.unflatten(0, (samples, -1))
        moved_STE = weights_STE + (mean_E[layer].to(weights_STE) - weights_STE.mean(dim=1, keepdim=True))
        return replace(decision, weights_TE=moved_STE.flatten(0, 1))

    return replace_routing(model, shift)


def shifted(model: nn.Module, shift_R: Tensor) -> AbstractContextManager[None]:
    """Inside the block `shift_R` is added to the weights of every token: for a sample that is run in several parts.

    Of one that is run as a whole this is `rerouted` by its own routing plus the shift. Raises ValueError for another R.
    """
    shift_E = by_layer(model, shift_R)

    def shift(layer: str, decision: RoutingDecision) -> RoutingDecision:
        weights_TE = decision.weights_TE
        return replace(decision, weights_TE=weights_TE + shift_E[layer].to(weights_TE))

    return replace_routing(model, shift)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Inside the block the model is in evaluation mode and takes no gradients; afterwards all is as it was."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training = [module for module in model.modules() if module.training]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()
        for module in training:
            module.training = True


def by_layer(model: nn.Module, routing_R: Tensor) -> dict[str, Tensor]:
    """A routing cut into that (E) of each MoE layer, by name. Raises ValueError for a routing of another model."""
    sizes = layer_sizes(model)
    if routing_R.shape != (sum(sizes.values()),):
        raise ValueError(f"the model has {sum(sizes.values())} routing weights, got {tuple(routing_R.shape)}")
    return dict(zip(sizes, routing_R.split(list(sizes.values())), strict=True))


def layer_sizes(model: nn.Module) -> dict[str, int]:
    """The model's MoE layers and how many experts each has, in the order in which they are named."""
    return {name: layer.router.num_experts for name, layer in moe_layers(model).items()}
