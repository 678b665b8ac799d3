"""One-bit weights with gradients: BinaryConnect (Courbariaux et al. 2015, arXiv 1511.00363), sections 2.2 to 2.4."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def sign(w: Tensor) -> Tensor:
    """+1 where w >= 0, -1 elsewhere (Eq. 1); the gradient passes straight through to w."""
    return _straight_through(w, _signs(w + 0.0))  # -0.0 + 0.0 is +0.0


def stochastic_sign(w: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """+1 with probability `hard_sigmoid(w)`, else -1 (Eq. 2); the gradient passes straight through to w."""
    chance = torch.rand(w.shape, dtype=w.dtype, device=w.device, generator=generator)
    # 1 - chance <= hard_sigmoid(w) where 2 chance + w - 1 >= 0: fewer passes over memory, and these take the time.
    return _straight_through(w, _signs(chance.mul_(2).add_(w.detach() - 1)))


def hard_sigmoid(w: Tensor) -> Tensor:
    """clip((w + 1) / 2, 0, 1) (Eq. 3)."""
    return ((w + 1) / 2).clamp(0, 1)


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


def _signs(w: Tensor) -> Tensor:
    """Several times faster than a comparison and a choice."""
    return torch.copysign(torch.ones((), dtype=w.dtype, device=w.device), w)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, w: Tensor, binary: Tensor) -> Tensor:
        return binary

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _straight_through(w: Tensor, binary: Tensor) -> Tensor:
    return _StraightThrough.apply(w, binary)  # type: ignore[no-untyped-call]
