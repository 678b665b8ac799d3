import torch
from hypothesis import given
from hypothesis import strategies as st

from mofme.core.experts.low_rank import LowRankExperts
from mofme.core.moe import MoE
from mofme.core.routers import MixtureOfRouters
from mofme.core.routing import keep_top_k


def by_loops(layer: LowRankExperts, x: list[float], weights: list[float], alpha: float, rank: int) -> list[float]:
    """One token, number by number: sum_e w_e B_e (A_e x) * alpha / rank."""
    down, up = layer.down_ERD.tolist(), layer.up_ERF.tolist()
    y = [0.0] * len(up[0][0])
    for expert, weight in enumerate(weights):
        low = [sum(a * value for a, value in zip(row, x, strict=True)) for row in down[expert]]
        for r, value in enumerate(low):
            for f in range(len(y)):
                y[f] += weight * up[expert][r][f] * value * alpha / rank
    return y


@given(
    tokens=st.integers(0, 5),
    dim=st.integers(1, 5),
    out=st.integers(1, 5),
    experts=st.integers(1, 5),
    rank=st.integers(1, 4),
    alpha=st.floats(0.5, 16),
    data=st.data(),
)
def test_it_equals_a_loop_over_numbers(
    tokens: int, dim: int, out: int, experts: int, rank: int, alpha: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, experts))
    torch.manual_seed(0)
    layer = LowRankExperts(dim, out, experts, rank, alpha, dropout=0).double()
    layer.up_ERF.data.normal_()
    x_TD = torch.randn(tokens, dim, dtype=torch.float64)
    weights_TE = keep_top_k(torch.rand(tokens, experts, dtype=torch.float64), k)
    expected = [by_loops(layer, x, w, alpha, rank) for x, w in zip(x_TD.tolist(), weights_TE.tolist(), strict=True)]
    torch.testing.assert_close(
        layer(x_TD, weights_TE), torch.tensor(expected, dtype=torch.float64).reshape(tokens, out)
    )


def test_by_hand() -> None:
    # alpha / rank = 4. Expert 0: A x = 2, B 2 = (2, 0); expert 1: A x = 3, B 3 = (0, 6). 4 (.25 (2, 0) + .5 (0, 6)).
    layer = LowRankExperts(2, 2, 2, rank=1, alpha=4, dropout=0)
    layer.down_ERD.data = torch.tensor([[[1.0, 0]], [[0, 1.0]]])
    layer.up_ERF.data = torch.tensor([[[1.0, 0]], [[0, 2.0]]])
    y_TF = layer(torch.tensor([[2.0, 3]]), torch.tensor([[0.25, 0.5]]))
    assert y_TF.tolist() == [[2.0, 12.0]]


def test_at_first_it_adds_nothing_and_only_the_way_up_learns() -> None:
    torch.manual_seed(0)
    layer = LowRankExperts(6, 4, 3)
    y_TF = layer(torch.randn(5, 6), torch.rand(5, 3))
    assert not y_TF.any()
    (y_TF - 1).square().sum().backward()
    assert layer.up_ERF.grad is not None and layer.up_ERF.grad.any()
    assert layer.down_ERD.grad is not None and not layer.down_ERD.grad.any()


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    layer = LowRankExperts(50, 4, 2, dropout=0.5)
    layer.up_ERF.data.normal_()
    x_TD, weights_TE = torch.randn(3, 50), torch.ones(3, 2)
    assert not torch.equal(layer(x_TD, weights_TE), layer(x_TD, weights_TE))
    layer.eval()
    assert torch.equal(layer(x_TD, weights_TE), layer(x_TD, weights_TE))


def test_an_expert_that_is_not_chosen_learns_nothing() -> None:
    torch.manual_seed(0)
    layer = MoE(MixtureOfRouters(6, 4), LowRankExperts(6, 5, 4))
    layer.experts.up_ERF.data.normal_()  # type: ignore[union-attr, operator]
    x_TD = torch.randn(1, 6)
    layer(x_TD).sum().backward()
    chosen_E = layer.router(x_TD).chosen_TE[0]
    learned_E = layer.experts.up_ERF.grad.flatten(1).any(1)  # type: ignore[union-attr, operator]
    assert learned_E.tolist() == chosen_E.tolist()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.router.parameters())
