import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mofme.core.routing import RoutingDecision, expert_scores, keep_top_k


def test_the_largest_scores_stay_and_the_rest_become_zero() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4], [-3.0, -1.0, -2.0]])
    # Signed scores are ranked by value, not by size: -1 and -2 are the two largest of the second row.
    assert keep_top_k(scores, 2).tolist() == [[0, 0.5, pytest.approx(0.4)], [0, -1, -2]]
    assert torch.equal(keep_top_k(scores, 3), scores)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_k_that_is_not_a_number_of_experts_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k}"):
        keep_top_k(torch.ones(2, 3), k)


def test_chosen_means_a_weight_that_is_not_zero() -> None:
    decision = RoutingDecision(torch.tensor([[0.0, -0.2, 0.8]]), torch.zeros(1, 3))
    assert decision.chosen_TE.tolist() == [[False, True, True]]


@given(
    tokens=st.integers(0, 9),
    experts=st.integers(1, 9),
    values=st.integers(1, 6),
    experts_first=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_it_chooses_as_topk_does_also_among_equal_scores(
    tokens: int, experts: int, values: int, experts_first: bool, dtype: torch.dtype, seed: int, data: st.DataObject
) -> None:
    # Few different values make many scores equal; both orders in memory, and k on both sides of the limit for passes.
    k = data.draw(st.integers(1, experts))
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randint(1, values + 1, (tokens, experts), generator=generator) - 2.5).to(dtype)
    if experts_first:
        scores = scores.T.contiguous().T
    top, index = scores.topk(k, dim=-1)
    assert torch.equal(keep_top_k(scores, k), torch.zeros_like(scores).scatter(-1, index, top))


@given(experts=st.integers(2, 12), seed=st.integers(0, 99), data=st.data())
def test_the_gradient_is_that_of_the_chosen_alone(experts: int, seed: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts))
    scores = torch.randint(-3, 4, (7, experts), generator=torch.Generator().manual_seed(seed)).double()
    scores = scores.requires_grad_()
    given_back = torch.randn(7, experts, dtype=torch.float64)
    keep_top_k(scores, k).backward(given_back)
    chosen = torch.zeros_like(scores).scatter(-1, scores.topk(k, dim=-1).indices, 1)
    assert scores.grad is not None
    assert torch.equal(scores.grad, chosen * given_back)


@pytest.mark.parametrize("scale", [1e-38, 1e38])
def test_the_smallest_and_the_largest_numbers_are_told_apart(scale: float) -> None:
    scores = scale * torch.tensor([[1.0, -2.0, 3.0, -3.0, 2.0], [-3.0, -1.0, -2.0, -1.5, -2.5]])
    expected = scale * torch.tensor([[1.0, 0, 3.0, 0, 2.0], [0, -1.0, -2.0, -1.5, 0]])
    assert torch.equal(keep_top_k(scores, 3), expected)


def test_scores_that_are_no_numbers_stay_visible() -> None:
    scores = torch.tensor([[1.0, torch.nan, 3.0], [1.0, 2.0, 3.0]])
    kept = keep_top_k(scores, 2)
    assert kept[0].isnan().any()
    assert kept[1].tolist() == [0, 2, 3]


def test_scores_are_one_product_for_every_expert() -> None:
    x, weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([[1.0, 0.0], [10.0, 1.0]])
    assert expert_scores(x, weight).tolist() == [[1, 12], [3, 34], [5, 56]]
