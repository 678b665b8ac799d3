"""The mixture of experts layer, and two ways to look inside a trained one: observe its routing, or replace it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from mofme.core.routing import Experts, Router, RoutingDecision


class MoE(nn.Module):
    """A router and its experts: stands in for any layer that maps (..., D) to (..., F).

    Raises ValueError for a single token without an axis of tokens, (D,).
    """

    def __init__(self, router: Router, experts: Experts) -> None:
        super().__init__()
        if router.num_experts != experts.num_experts:
            raise ValueError(f"the router knows {router.num_experts} experts, the layer has {experts.num_experts}")
        self.router = router
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2:
            raise ValueError(f"a mixture takes tokens (..., T, D), got {tuple(x.shape)}: give one token as (1, D)")
        x_TD = x.flatten(0, -2)
        decision: RoutingDecision = self.router(x_TD)
        y_TF: Tensor = self.experts(x_TD, decision.weights_TE)
        return y_TF.unflatten(0, x.shape[:-1])


@dataclass(frozen=True)
class ObservedRouting:
    """A decision taken while observing: which layer took it, and the leading shape its tokens came in."""

    layer: str
    leading_shape: tuple[int, ...]
    decision: RoutingDecision


@contextmanager
def observe_routing(model: nn.Module) -> Iterator[list[ObservedRouting]]:
    """Collect every decision that the MoE layers of `model` take inside the block, in order of execution.

    Gradients flow through what is collected, so that losses can read it.
    """
    observed: list[ObservedRouting] = []
    handles = []
    for name, moe in _moe_layers(model):
        shapes: list[tuple[int, ...]] = []

        def enter(_: nn.Module, args: tuple[Tensor], shapes: list[tuple[int, ...]] = shapes) -> None:
            shapes[:] = [tuple(args[0].shape[:-1])]

        def record(
            _: nn.Module,
            __: tuple[Tensor],
            decision: RoutingDecision,
            name: str = name,
            shapes: list[tuple[int, ...]] = shapes,
        ) -> None:
            observed.append(ObservedRouting(name, shapes[0], decision))

        handles += [moe.register_forward_pre_hook(enter), moe.router.register_forward_hook(record)]
    try:
        yield observed
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replace_routing(model: nn.Module, edit: Callable[[str, RoutingDecision], RoutingDecision]) -> Iterator[None]:
    """Inside the block every MoE layer follows `edit(layer name, its own decision)` instead of its own decision."""
    handles = [
        moe.router.register_forward_hook(lambda _, __, decision, name=name: edit(name, decision))
        for name, moe in _moe_layers(model)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _moe_layers(model: nn.Module) -> list[tuple[str, MoE]]:
    # Only a layer's own router is hooked: a router that wraps others would otherwise be seen several times.
    return [(name, module) for name, module in model.named_modules() if isinstance(module, MoE)]
