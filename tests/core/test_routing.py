import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mofme.core.routing import RoutingDecision, keep_top_k


def test_the_largest_scores_stay_and_the_rest_become_zero() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4], [-3.0, -1.0, -2.0]])
    # Signed scores are ranked by value, not by size: -1 and -2 are the two largest of the second row.
    assert keep_top_k(scores, 2).tolist() == [[0, 0.5, pytest.approx(0.4)], [0, -1, -2]]
    assert torch.equal(keep_top_k(scores, 3), scores)


def test_only_kept_scores_have_a_gradient() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    keep_top_k(scores, 2).sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("k", [0, -1, 4])
def test_a_k_that_is_not_a_number_of_experts_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k}"):
        keep_top_k(torch.ones(2, 3), k)


@given(tokens=st.integers(0, 9), experts=st.integers(1, 9), data=st.data())
def test_k_stay_and_none_that_is_smaller(tokens: int, experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts))
    scores = torch.rand(tokens, experts, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99)))) + 0.1
    kept = keep_top_k(scores, k)
    chosen = RoutingDecision(kept, scores).chosen_TE
    assert chosen.sum(dim=-1).tolist() == [k] * tokens
    assert torch.equal(kept[chosen], scores[chosen])
    smallest_kept = scores.masked_fill(~chosen, torch.inf).amin(dim=-1)
    assert (scores.masked_fill(chosen, 0).amax(dim=-1) <= smallest_kept).all()


def test_chosen_means_a_weight_that_is_not_zero() -> None:
    decision = RoutingDecision(torch.tensor([[0.0, -0.2, 0.8]]), torch.zeros(1, 3))
    assert decision.chosen_TE.tolist() == [[False, True, True]]
