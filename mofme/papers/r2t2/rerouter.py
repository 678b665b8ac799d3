"""From a picture to its re-routed restoration: look at it, find the neighbours, move the routing, restore again.

Axis names: D embedding, R routing weights (all experts of all layers in a row), k neighbours.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mofme.core import rerouting
from mofme.core.moe import replace_routing, this_thread_only
from mofme.core.rerouting import LossOf, Neighbours, frozen, nearest
from mofme.core.routing import RoutingDecision
from mofme.errors import ModelError
from mofme.papers.r2t2.references import KINDS, Method, References
from mofme.vision.metrics import psnr_loss
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restoration, Restorer

RATE_FALLS_TO = 1e-3  # of the first rate, as in the paper


class _Sum:
    """Of values (..., D), summed over all but the last axis."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, values: Tensor) -> None:
        flat_TD = values.detach().flatten(0, -2)
        wide = torch.float32 if flat_TD.device.type == "mps" else torch.float64  # which MPS does not have
        self.total = self.total + flat_TD.sum(dim=0, dtype=wide).cpu().double()
        self.count += len(flat_TD)

    def mean(self) -> Tensor:
        return torch.as_tensor(self.total) / self.count


class Observation:
    """Means over all that was seen while observing; tiles overlap, and what lies in two of them counts twice."""

    def __init__(self, net: RestorationNet) -> None:
        self.weights = {layer: _Sum() for layer in rerouting.layer_sizes(net)}
        self.features, self.squares = _Sum(), _Sum()

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
    observation = Observation(net)

    def keep(layer: str, decision: RoutingDecision) -> RoutingDecision:
        observation.weights[layer].add(decision.weights_TE)
        return decision

    def look(_: nn.Module, __: tuple[Tensor], features: Tensor) -> None:
        features_BHWC = features.permute(0, 2, 3, 1).float()
        observation.features.add(features_BHWC)
        observation.squares.add(features_BHWC.square())

    handle = net.to_eighth.register_forward_hook(this_thread_only(look))
    try:
        with replace_routing(net, keep):
            yield observation
    finally:
        handle.remove()


@dataclass(frozen=True)
class Neighbour:
    """A reference that a picture's routing was taken from; `weight` is the kernel's, `gain` in dB its own restoring."""

    weather: str
    distance: float
    weight: float
    gain: float


@dataclass(frozen=True)
class Rerouted:
    """A picture restored twice, and what moved its routing in between.

    `before`, `target` and `after` map each MoE layer's name to the mean weights (E) of the picture's tokens: as its
    routers say, as its neighbours say, and as it was restored in the end. `moved` is the length of the shift as a share
    of that of the routing; `seconds` all that it took, `extra_seconds` what it took beyond restoring once.
    """

    plain: Restoration
    restoration: Restoration
    before: dict[str, Tensor]
    target: dict[str, Tensor]
    after: dict[str, Tensor]
    neighbours: tuple[Neighbour, ...]
    method: Method
    moved: float
    seconds: float
    extra_seconds: float


@dataclass(frozen=True)
class Found:
    """Where a picture's routing should go, and which references say so."""

    routing_R: Tensor
    target_R: Tensor
    near: Neighbours
    distance_k: Tensor


def explain(
    restorer: Restorer, picture: Tensor, method: Method | None = None, references: References | None = None, **how: Any
) -> Rerouted:
    """Restore a picture (3, H, W) as it is and re-routed.

    `method` is by default the one chosen on tuning pictures. `references` are by default the shipped ones; `how` is
    what `Restorer` takes. Raises ModelError if they were made for another model or lack the pairs that gradient descent
    needs.
    """
    references = references or References.load()
    references.check(restorer.net)
    return reroute(restorer, picture, method, references, **how)


def reroute(restorer: Restorer, picture: Tensor, method: Method | None, references: References, **how: Any) -> Rerouted:
    """As `explain`, with references that were checked before."""
    if restorer.runtime != "torch":
        raise ModelError(f"the runtime {restorer.runtime} cannot be re-routed: take torch")
    start = time.perf_counter()
    tell: Callable[[float], None] | None = how.pop("on_progress", None)
    with observed(restorer.net) as observation:
        plain = restorer(picture, **how, on_progress=tell and (lambda share: tell(share / 2)))
    between = time.perf_counter()
    method = method or references.choices.method
    found = find(restorer.net, observation, references, method)
    shift_R = found.routing_R - observation.routing_R
    with rerouting.shifted(restorer.net, shift_R):
        restoration = restorer(picture, **how, on_progress=tell and (lambda share: tell(0.5 + share / 2)))
    seconds = time.perf_counter() - start
    own_R, near = observation.routing_R, found.near
    parts = (references.kind_N[near.index_k], found.distance_k, near.kernel_k, references.gain_N[near.index_k])
    neighbours = zip(*(part.tolist() for part in parts), strict=True)
    before, target, after = (rerouting.by_layer(restorer.net, one) for one in (own_R, found.target_R, found.routing_R))
    return Rerouted(
        plain=plain,
        restoration=replace(restoration, seconds=seconds),
        before=before,
        target=target,
        after=after,
        neighbours=tuple(Neighbour(KINDS[kind], *numbers) for kind, *numbers in neighbours),
        method=method,
        moved=(shift_R.norm() / own_R.norm()).item(),
        seconds=seconds,
        extra_seconds=seconds - (between - start),
    )


def find(
    net: RestorationNet, seen: Observation, references: References, method: Method, near: Neighbours | None = None
) -> Found:
    """Where the routing of what was seen should go; `near` are other neighbours than the nearest."""
    choices, own_R = references.best(method), seen.routing_R
    if method == "mode finding":
        target_R = rerouting.find_mode(own_R, references.routing_NR, choices.k, own=choices.own)
        near = nearest(target_R, references.routing_NR, choices.k)
        return Found(target_R, target_R, near, (references.routing_NR[near.index_k] - own_R).norm(dim=-1))
    near = near or references.near(seen.embedding_D, choices.k)
    place_D, place_kD = references.placed(seen.embedding_D), references.placed(references.embedding_ND[near.index_k])
    distance_k = (place_kD - place_D).norm(dim=-1)
    if method == "stored steps":
        target_R = own_R + near.mean(references.step_NR[near.index_k])
        routing_R = torch.lerp(own_R, target_R, choices.stride)
    elif method == "kernel regression":
        target_R = near.mean(references.routing_NR[near.index_k])
        routing_R = torch.lerp(target_R, own_R, choices.own)
    else:
        with frozen(net):
            loss_of = neighbours_loss(net, references, near)
            routing_R = target_R = rerouting.descend(own_R, loss_of, rates=(choices.rate, choices.rate * RATE_FALLS_TO))
    return Found(routing_R, target_R, near, distance_k)


def neighbours_loss(net: RestorationNet, references: References, near: Neighbours) -> LossOf:
    """L(r) of the paper: the net's training loss, on the neighbours' pairs. Raises ModelError without pairs."""
    if references.weathered_NCHW is None or references.clean_NCHW is None:
        raise ModelError(
            "gradient descent needs the references' pictures, which may not be passed on with the shipped ones: make "
            "some of your own photographs, type: python -m mofme build-references PHOTOGRAPHS --out FOLDER --pairs"
        )
    pairs = (references.weathered_NCHW, references.clean_NCHW)
    device = net.stem.weight.device
    weathered_kCHW, clean_kCHW = (part[near.index_k].to(device).float() / 255 for part in pairs)
    return pairs_loss(net, weathered_kCHW, clean_kCHW, near.kernel_k.to(device))


def pairs_loss(net: RestorationNet, weathered_BCHW: Tensor, clean_BCHW: Tensor, share_B: Tensor) -> LossOf:
    """Of a routing: the training loss of pairs (B, 3, H, W) under it, each by its share."""

    def loss_of(routing_R: Tensor) -> Tensor:
        with rerouting.rerouted(net, routing_R.to(share_B), samples=len(share_B)):
            restored_BCHW = net(weathered_BCHW).image
        losses = [psnr_loss(*pair) for pair in zip(restored_BCHW.split(1), clean_BCHW.split(1), strict=True)]
        return (torch.stack(losses) * share_B).sum().to(routing_R)

    return loss_of


class Rerouter:
    """Stands in for a `Restorer`: restores every picture re-routed, and tells `report` what came of it."""

    def __init__(
        self,
        restorer: Restorer,
        references: References,
        method: Method | None = None,
        report: Callable[[Rerouted], None] = lambda _: None,
    ) -> None:
        references.check(restorer.net)
        self.restorer = restorer
        self.references = references
        self.method = method or references.choices.method
        self.report = report
        self.version = f"{restorer.version}, re-routed by {self.method} from {references.digest[:8]}"

    def __call__(self, image: Tensor, **how: Any) -> Restoration:
        """As `Restorer.__call__`."""
        result = reroute(self.restorer, image, self.method, self.references, **how)
        self.report(result)
        return result.restoration
