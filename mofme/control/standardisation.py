"""Observations brought to one scale, so that positions of a few hundredths teach as fast as speeds of many.

Not the paper's. Learning sees standardised observations; what is kept is a policy of raw ones that acts alike, because
a linear map of a scaled input is a linear map.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mofme.control.policy import SparseLinearPolicy
from mofme.control.replay import Transitions

_CONSTANT = 1e-6  # an observation that varies less stays as it is


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation (D,) of observations."""

    mean_D: Tensor
    std_D: Tensor

    @classmethod
    def of(cls, x_TD: Tensor) -> "Standardisation":
        """Of T observations (T, D)."""
        std_D = x_TD.std(dim=0)
        return cls(x_TD.mean(dim=0), torch.where(std_D > _CONSTANT, std_D, 1.0))

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Raw observations (T, D) -> standardised ones."""
        return (x_TD - self.mean_D) / self.std_D

    def batch(self, raw: Transitions) -> Transitions:
        """The same steps with standardised observations."""
        return replace(raw, x_TD=self(raw.x_TD), next_TD=self(raw.next_TD))

    def raw_policy(self, policy: SparseLinearPolicy) -> SparseLinearPolicy:
        """A policy of raw observations that acts like `policy` on standardised ones."""
        raw = copy.deepcopy(policy)
        with torch.no_grad():
            for weight in (raw.experts_EFD, raw.router_ED):
                weight[..., :-1] /= self.std_D
                weight[..., -1] -= weight[..., :-1] @ self.mean_D
        return raw
