"""Routers by name, for whatever lets its users choose one."""

from collections.abc import Mapping
from typing import Literal

from mofme.core.routers.attention import AttentionRouter
from mofme.core.routers.linear import LinearRouter
from mofme.core.routers.mixture import MixtureOfRouters
from mofme.core.routers.mlp import MLPRouter
from mofme.core.routers.uncertainty import UncertaintyRouter
from mofme.core.routing import Router

RouterKind = Literal["linear", "mlp", "attention", "mixture", "uncertainty"]

# Each is made of the features of a token, the number of experts, and how many of them a token visits.
ROUTERS: Mapping[RouterKind, type[Router]] = {
    "linear": LinearRouter,
    "mlp": MLPRouter,
    "attention": AttentionRouter,
    "mixture": MixtureOfRouters,
    "uncertainty": UncertaintyRouter,
}
