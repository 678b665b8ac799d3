"""What a router of prompts is: it learns from a table, and offers a choice of model for every setting of its dial.

Source: CARROT (arXiv 2502.03261), section 2: quality and cost are estimated, then the plug-in rule decides.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from mofme.core.routing import RoutingDecision
from mofme.language.llm_routing.table import FloatArray, IntArray, RoutingTable
from mofme.language.sentence_encoder import Queries

# The weight of cost in the plug-in rule, from "quality only" to "cost only", denser where choices change.
LAMBDAS: FloatArray = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 120), [1.0]])


@dataclass(frozen=True)
class Estimate:
    """What a router expects of M models on N prompts: quality in [0, 1], cost in dollars."""

    quality_NM: FloatArray
    cost_NM: FloatArray


class PromptRouter(ABC):
    """Learns from a table and its queries (same prompts, same order); then chooses models for others."""

    name: str

    @abstractmethod
    def fit(self, table: RoutingTable, queries: Queries) -> None: ...

    @abstractmethod
    def sweep(self, queries: Queries) -> IntArray:
        """The model chosen for each prompt at each of S settings of the router's dial: indices (S, N)."""


class EstimatingRouter(PromptRouter):
    """A router that estimates quality and cost, and leaves the choice to the plug-in rule."""

    @abstractmethod
    def estimate(self, queries: Queries) -> Estimate: ...

    def sweep(self, queries: Queries) -> IntArray:
        estimate = self.estimate(queries)
        scale = cost_scale(estimate)
        return np.stack([plug_in(estimate, weight, scale).argmax(1) for weight in LAMBDAS])


def cost_scale(estimate: Estimate) -> float:
    """What a cost of 1 stands for in the plug-in rule: the mean cost of the dearest model, in dollars."""
    return max(float(estimate.cost_NM.mean(0).max()), 1e-12)


def plug_in(estimate: Estimate, cost_weight: float, scale: float = 1.0) -> FloatArray:
    """Utility (N, M), the best model having the largest: `(1 - lambda) quality - lambda cost / scale` (CARROT)."""
    return (1 - cost_weight) * estimate.quality_NM - cost_weight * estimate.cost_NM / scale


def within_budget(estimate: Estimate, dollars: float) -> IntArray:
    """The best model (N,) of those expected to cost at most `dollars` a query; the cheapest where none does."""
    affordable = np.where(estimate.cost_NM <= dollars, estimate.quality_NM, -np.inf)
    return np.where(np.isfinite(affordable).any(1), affordable.argmax(1), estimate.cost_NM.argmin(1))


def at_least_quality(estimate: Estimate, quality: float) -> IntArray:
    """The cheapest model (N,) of those expected to reach `quality`; the best where none does."""
    able = np.where(estimate.quality_NM >= quality, estimate.cost_NM, np.inf)
    return np.where(np.isfinite(able).any(1), able.argmin(1), estimate.quality_NM.argmax(1))


def as_decision(utility_NM: FloatArray) -> RoutingDecision:
    """The choice in the core's own words: one prompt is a token, one model an expert, and all weight is on one."""
    logits_NM = torch.from_numpy(utility_NM)
    weights_NM = torch.nn.functional.one_hot(logits_NM.argmax(1), logits_NM.shape[1]).to(logits_NM.dtype)
    return RoutingDecision(weights_NM, logits_NM)
