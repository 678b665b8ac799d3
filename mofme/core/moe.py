"""The mixture of experts layer, what it costs, and two ways to look inside a model: observe its routing, or replace it.

Axis names beside those of `routing.py`: L layers of a model.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mofme.core.routing import Experts, Router, RoutingDecision


class MoE(nn.Module):
    """A router and its experts: stands in for any layer that maps (..., D) to (..., F).

    Raises ValueError for a single token without an axis of tokens, (D,), and if the two differ in number of experts.
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


def moe_layers(model: nn.Module) -> dict[str, MoE]:
    """The MoE layers of a model by name, in the order in which they are named."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MoE)}


def parameters(model: nn.Module) -> int:
    """How many it has; those that are used twice count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def activated_parameters(model: nn.Module, active_L: Iterable[float] | None = None) -> float:
    """Of its parameters, those that work on one token: all but those of the experts that the token leaves out.

    A router works on every token whole, whichever it is. `active_L` is how many experts a token visits in each of
    `moe_layers`: by default the routers' `top_k`, else a mean, as observed say.
    """
    layers = moe_layers(model).values()
    active_L = [layer.router.top_k for layer in layers] if active_L is None else active_L
    idle = [
        (layer.experts.num_experts - active) * layer.experts.expert_parameters
        for layer, active in zip(layers, active_L, strict=True)
    ]
    return parameters(model) - float(sum(idle))


@dataclass(frozen=True)
class ObservedRouting:
    """A decision taken while observing.

    `layer` names who took it, `leading_shape` is that of the layer's input without D, and `x_TD` are its tokens, None
    where they were not asked for.
    """

    layer: str
    leading_shape: tuple[int, ...]
    decision: RoutingDecision
    x_TD: Tensor | None = None


@contextmanager
def observe_routing(model: nn.Module, tokens: bool = False) -> Iterator[list[ObservedRouting]]:
    """Collect every decision that the MoE layers of `model` take for this thread inside the block, in order.

    Gradients flow through what is collected, so that losses can read it. With `tokens` it keeps those in memory, too.
    """
    observed: list[ObservedRouting] = []
    handles = [handle for name, layer in moe_layers(model).items() for handle in _hooks(name, layer, observed, tokens)]
    try:
        yield observed
    finally:
        for handle in handles:
            handle.remove()


def _hooks(name: str, layer: MoE, observed: list[ObservedRouting], tokens: bool) -> list[RemovableHandle]:
    # Only a layer's own router is hooked: a router that wraps others would otherwise be seen several times.
    leading_shape: tuple[int, ...] = ()

    def enter(_: nn.Module, args: tuple[Tensor]) -> None:
        nonlocal leading_shape
        leading_shape = tuple(args[0].shape[:-1])

    def record(_: nn.Module, args: tuple[Tensor], decision: RoutingDecision) -> None:
        observed.append(ObservedRouting(name, leading_shape, decision, args[0] if tokens else None))

    return [
        layer.register_forward_pre_hook(this_thread_only(enter)),
        layer.router.register_forward_hook(this_thread_only(record)),
    ]


def this_thread_only(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that stays out of what other threads do with the same model at the same time."""
    thread = get_ident()
    return lambda *arguments: hook(*arguments) if get_ident() == thread else None


@contextmanager
def replace_routing(model: nn.Module, edit: Callable[[str, RoutingDecision], RoutingDecision]) -> Iterator[None]:
    """Inside the block every MoE layer follows `edit(layer name, its own decision)` instead of its own decision.

    It does so for this thread; others that run the same model meanwhile get its own decisions.
    """
    handles = [
        layer.router.register_forward_hook(this_thread_only(lambda _, __, decision, name=name: edit(name, decision)))
        for name, layer in moe_layers(model).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
