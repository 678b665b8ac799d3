import math

import pytest
import torch

from mofme.core.moe import ObservedRouting
from mofme.core.routing import RoutingDecision
from mofme.vision.metrics import objective, psnr_loss
from mofme.vision.nets.unet import NetOutput


def grey(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 5)


def routing(weights: list[list[float]]) -> ObservedRouting:
    weights_TE = torch.tensor(weights)
    return ObservedRouting("layer", (len(weights),), RoutingDecision(weights_TE, weights_TE))


def test_psnr_loss_by_hand() -> None:
    # Errors .1 and .03: log10(.01 + .0001) and log10(.0009 + .0001) = -3, halved and averaged.
    loss = psnr_loss(grey(0.6, 0.23), grey(0.5, 0.2))
    assert loss.item() == pytest.approx((math.log10(0.0101) - 3) / 4, rel=1e-4)


def test_a_decibel_of_any_weather_counts_alike() -> None:
    # Halving an error gains 6 dB, from strong weather as from weak: the loss falls by log10(2), far above its floor.
    def gained(error: float) -> float:
        return (psnr_loss(grey(0.5 + error), grey(0.5)) - psnr_loss(grey(0.5 + error / 2), grey(0.5))).item()

    assert gained(0.4) == pytest.approx(math.log10(2), rel=0.01)
    assert gained(0.2) == pytest.approx(math.log10(2), rel=0.01)


def test_a_clean_picture_does_not_hold_a_net_at_the_identity() -> None:
    output = grey(0.5).clone().requires_grad_()
    psnr_loss(output, grey(0.5)).backward()
    assert output.grad is not None
    assert (output.grad == 0).all()


def test_naming_the_weather() -> None:
    # A perfect picture, log10(1e-4) / 2 = -2, and logits of 0: .1 * ln 2. A sure and right answer costs nothing.
    clean = grey(0.5)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    unsure = objective(NetOutput(clean, torch.zeros(1, 4)), clean, labels, [])
    sure = objective(NetOutput(clean, 100 * (2 * labels - 1)), clean, labels, [])
    assert unsure.item() == pytest.approx(-2 + 0.1 * math.log(2), rel=1e-5)
    assert sure.item() == pytest.approx(-2, rel=1e-5)


def test_weather_that_nobody_knows_is_not_taught() -> None:
    # Half of the labels are known: ln 2 for each of two, over four. A sure answer for the others costs nothing.
    clean = grey(0.5)
    logits = torch.tensor([[0.0, 0.0, 50.0, -50.0]], requires_grad=True)
    loss = objective(NetOutput(clean, logits), clean, torch.tensor([[1.0, 0.0, torch.nan, torch.nan]]), [])
    assert loss.item() == pytest.approx(-2 + 0.1 * math.log(2) / 2, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 2:].tolist() == [0, 0]


def test_balance_of_experts() -> None:
    # All on one of two experts: importance (2, 0), mean 1, variance 1, so CV^2 = 1; shared evenly: 0. Mean: .5.
    clean = grey(0.5)
    labels = torch.zeros(1, 4)
    output = NetOutput(clean, torch.full((1, 4), -100.0))
    one_sided, even = routing([[1.0, 0.0], [1.0, 0.0]]), routing([[1.0, 0.0], [0.0, 1.0]])
    assert objective(output, clean, labels, [even]).item() == pytest.approx(-2, rel=1e-6)
    assert objective(output, clean, labels, [one_sided, even]).item() == pytest.approx(-2 + 0.5e-3, rel=1e-6)


def test_gradients_reach_pictures_and_weather() -> None:
    output = NetOutput(grey(0.6).clone().requires_grad_(), torch.zeros(1, 4, requires_grad=True))
    objective(output, grey(0.5), torch.ones(1, 4), []).backward()
    assert output.image.grad is not None
    assert (output.image.grad > 0).all(), "the picture is too bright"
    assert output.weather_BW.grad is not None
    assert (output.weather_BW.grad < 0).all(), "all weathers are there"
