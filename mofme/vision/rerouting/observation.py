"""What one picture looks like to the net: its place among other pictures, and how it is routed, tile after tile."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mofme.core.moe import replace_routing
from mofme.core.rerouting import layer_sizes
from mofme.core.routing import RoutingDecision
from mofme.vision.nets.unet import RestorationNet


@dataclass
class _Sum:
    """Of values (..., D), summed over all but the last axis."""

    total: Tensor | float = 0.0
    count: int = 0

    def add(self, values: Tensor) -> None:
        flat_TD = values.detach().flatten(0, -2)
        self.total = self.total + flat_TD.sum(dim=0, dtype=torch.float64).cpu()
        self.count += len(flat_TD)

    def mean(self) -> Tensor:
        return torch.as_tensor(self.total) / self.count


@dataclass
class Observation:
    """Means over all that was seen while observing; tiles overlap, and what lies in two of them counts twice."""

    weights: dict[str, _Sum] = field(default_factory=dict)
    features: _Sum = field(default_factory=_Sum)
    squares: _Sum = field(default_factory=_Sum)

    @property
    def routing_R(self) -> Tensor:
        """The mean weights of each MoE layer, one layer after the other, as `core.rerouting` takes them."""
        return torch.cat([layer.mean() for layer in self.weights.values()]).float()

    @property
    def embedding_D(self) -> Tensor:
        """Mean and standard deviation of the encoder's last features, over the picture."""
        mean_C = self.features.mean()
        deviation_C = (self.squares.mean() - mean_C.square()).clamp_min(0).sqrt()
        return torch.cat([mean_C, deviation_C]).float()


@contextmanager
def observed(net: RestorationNet) -> Iterator[Observation]:
    """Inside the block what the net sees is added up, in memory that does not grow with the picture."""
    observation = Observation()

    def keep(layer: str, decision: RoutingDecision) -> RoutingDecision:
        observation.weights[layer].add(decision.weights_TE)
        return decision

    def look(_: nn.Module, __: tuple[Tensor], features: Tensor) -> None:
        features_BHWC = features.permute(0, 2, 3, 1).float()
        observation.features.add(features_BHWC)
        observation.squares.add(features_BHWC.square())

    observation.weights = {layer: _Sum() for layer in layer_sizes(net)}
    handle = net.to_eighth.register_forward_hook(look)
    try:
        with replace_routing(net, keep):
            yield observation
    finally:
        handle.remove()
