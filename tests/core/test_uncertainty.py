"""The uncertainty-aware router: its moments against all dropout masks, its rule against numbers worked out by hand."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.core.uncertainty import UncertaintyRouter


def with_scores(router: UncertaintyRouter, weight_ED: Tensor) -> UncertaintyRouter:
    router.score.weight.data = weight_ED.to(torch.float64)
    return router.double()


def test_moments_equal_those_over_all_dropout_masks() -> None:
    # With 5 features there are 32 masks, of probability (1 - p)^kept p^dropped: mean and variance by their sums.
    rate = 0.3
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)), dtype=torch.float64)
    probability = (1 - rate) ** masks.sum(1) * rate ** (5 - masks.sum(1))
    scores = (x * masks / (1 - rate)) @ weight.T
    mean = probability @ scores
    our_mean, our_variance = with_scores(UncertaintyRouter(5, 4, dropout=rate), weight).moments(x)
    torch.testing.assert_close(our_mean[0], mean)
    torch.testing.assert_close(our_variance[0], probability @ (scores - mean).square())


def test_sampled_moments_converge_to_the_closed_form() -> None:
    torch.manual_seed(0)
    rate, samples = 0.3, 4_000
    closed = UncertaintyRouter(8, 4, dropout=rate).double()
    sampled = UncertaintyRouter(8, 4, dropout=rate, samples=samples).double()
    sampled.load_state_dict(closed.state_dict())
    x = torch.randn(3, 8, dtype=torch.float64)
    with torch.no_grad():
        mean, variance = closed.moments(x)
        sampled_mean, sampled_variance = sampled.moments(x)
    # The mean of n samples strays by sqrt(variance / n), their variance by about variance * sqrt(2 / n).
    assert ((sampled_mean - mean).abs() < 5 * (variance / samples).sqrt()).all()
    assert ((sampled_variance / variance - 1).abs() < 5 * math.sqrt(2 / samples)).all()


def test_uncertainty_router_by_hand() -> None:
    # W = I, x = (1, 2, 4), p = .5, so p / (1 - p) = 1: mean (1, 2, 4), variance (1, 4, 16).
    # Centred: (-4, -1, 5) / 3. Ridge: .01 of the mean variance 7. Calibrated: -4/3 / 1.07, -1/3 / 4.07, 5/3 / 16.07
    # = -1.246106, -.081900, .103713, of length 1.253094: weights -.994423, -.065358, .082766; the two largest stay.
    # Uncertainty: sqrt(7) / (sqrt(7) + sqrt((16 + 1 + 25) / 27)) = 2.645751 / (2.645751 + 1.247219) = .679622.
    router = with_scores(UncertaintyRouter(3, 3, top_k=2, dropout=0.5), torch.eye(3))
    decision = router(torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64))
    assert decision.weights_TE.tolist() == [[0, pytest.approx(-0.065358, abs=1e-6), pytest.approx(0.082766, abs=1e-6)]]
    assert decision.logits_TE.tolist() == [[1, 2, 4]]
    assert decision.uncertainty_T.tolist() == [pytest.approx(0.679622, abs=1e-6)]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_weights_do_not_change_with_the_scale_of_the_scores(factor: float) -> None:
    torch.manual_seed(0)
    router = UncertaintyRouter(6, 4, top_k=4).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    before = router(x)
    router.score.weight.data *= factor
    after = router(x)
    # Sigma^-1 [r - mu] goes with 1 / factor, and its length is divided out.
    torch.testing.assert_close(after.weights_TE, before.weights_TE)
    torch.testing.assert_close(after.uncertainty_T, before.uncertainty_T)


@pytest.mark.parametrize("samples", [None, 4])
def test_the_same_rule_holds_in_training_and_in_inference(samples: int | None) -> None:
    torch.manual_seed(0)
    router = UncertaintyRouter(6, 4, dropout=0.5, samples=samples)
    x = torch.randn(5, 6)
    decisions = []
    for mode in (True, False):
        torch.manual_seed(1)
        decisions.append(router.train(mode)(x))
    assert torch.equal(decisions[0].weights_TE, decisions[1].weights_TE)
    assert (decisions[1].uncertainty_T > 0).all()


def test_passes_that_happen_to_agree_give_a_certain_decision() -> None:
    # Without a single dropped feature the variance is 0: the weights are then those of [r - mu] alone.
    torch.manual_seed(0)
    router = UncertaintyRouter(6, 4, top_k=4, dropout=1e-6, samples=2)
    x = 100 * torch.randn(5, 6)
    decision = router(x)
    centred = router.score(x) - router.score(x).mean(dim=-1, keepdim=True)
    torch.testing.assert_close(decision.weights_TE, F.normalize(centred, dim=-1))
    assert decision.uncertainty_T.tolist() == pytest.approx([0] * 5, abs=1e-3)
    assert UncertaintyRouter(6, 1, top_k=1)(x).weights_TE.tolist() == [[0]] * 5  # nobody to stand out from


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_of_zeros_breaks_neither_weights_nor_gradients(dtype: torch.dtype) -> None:
    router = UncertaintyRouter(6, 4, 2).to(dtype)
    x = torch.zeros(3, 6, dtype=dtype)
    x[0] = 1
    x.requires_grad_()
    decision = router(x)
    (decision.weights_TE.square().sum() + decision.uncertainty_T.sum()).backward()
    assert decision.weights_TE.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in router.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"dropout": 0.0}, "dropout"), ({"dropout": 1.0}, "dropout"), ({"samples": 1}, "at least 2 samples")],
)
def test_uncertainty_router_refuses_what_has_no_variance(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UncertaintyRouter(6, 4, **arguments)  # type: ignore[arg-type]
