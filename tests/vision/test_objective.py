import math

import pytest
import torch

from mofme.core.moe import ObservedRouting
from mofme.core.routing import RoutingDecision
from mofme.vision.nets.unet import NetOutput
from mofme.vision.objective import objective, relative_loss


def grey(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 5)


def routing(weights: list[list[float]]) -> ObservedRouting:
    weights_TE = torch.tensor(weights)
    return ObservedRouting("layer", (len(weights),), RoutingDecision(weights_TE, weights_TE))


def test_relative_loss_by_hand() -> None:
    # |.6 - .5| / (|.9 - .5| + .03) = .1 / .43; |.3 - .2| / (|.21 - .2| + .03) = .1 / .04
    loss = relative_loss(grey(0.6, 0.3), weathered=grey(0.9, 0.21), clean=grey(0.5, 0.2))
    assert loss.item() == pytest.approx((0.1 / 0.43 + 0.1 / 0.04) / 2, rel=1e-5)


def test_a_share_of_any_weather_counts_alike() -> None:
    # Half of the error removed: .5 d / (d + .03), near one half for strong and weak weather, unlike an L1 loss.
    strong = relative_loss(grey(0.7), grey(0.9), grey(0.5)).item()
    weak = relative_loss(grey(0.6), grey(0.7), grey(0.5)).item()
    assert (strong, weak) == pytest.approx((0.2 / 0.43, 0.1 / 0.23), rel=1e-5)
    assert strong / weak < 1.1


def test_naming_the_weather() -> None:
    # A perfect picture and logits of 0: .005 * ln 2. A sure and right answer costs nothing.
    clean, weathered = grey(0.5), grey(0.8)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    unsure = objective(NetOutput(clean, torch.zeros(1, 4)), weathered, clean, labels, [])
    sure = objective(NetOutput(clean, 100 * (2 * labels - 1)), weathered, clean, labels, [])
    assert unsure.item() == pytest.approx(0.005 * math.log(2), rel=1e-5)
    assert sure.item() == pytest.approx(0, abs=1e-7)


def test_balance_of_experts() -> None:
    # All on one of two experts: importance (2, 0), mean 1, variance 1, so CV^2 = 1; shared evenly: 0. Mean: .5.
    clean = grey(0.5)
    labels = torch.zeros(1, 4)
    output = NetOutput(clean, torch.full((1, 4), -100.0))
    one_sided, even = routing([[1.0, 0.0], [1.0, 0.0]]), routing([[1.0, 0.0], [0.0, 1.0]])
    assert objective(output, clean, clean, labels, [even]).item() == pytest.approx(0, abs=1e-7)
    assert objective(output, clean, clean, labels, [one_sided, even]).item() == pytest.approx(0.5e-3, rel=1e-4)


def test_gradients_reach_pictures_and_weather() -> None:
    output = NetOutput(grey(0.6).clone().requires_grad_(), torch.zeros(1, 4, requires_grad=True))
    objective(output, grey(0.8), grey(0.5), torch.ones(1, 4), []).backward()
    assert output.image.grad is not None
    assert (output.image.grad > 0).all(), "the picture is too bright"
    assert output.weather_BW.grad is not None
    assert (output.weather_BW.grad < 0).all(), "all weathers are there"
