import torch

from mofme.core.experts.linear import LinearExperts


def test_every_token_gets_the_weighed_sum_of_its_experts_maps() -> None:
    experts = LinearExperts(dim=3, out=2, num_experts=4).double()
    x_TD = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights_TE = torch.tensor([[0.0, 0.5, 0, 0]] * 4 + [[0.25, 0, 0, -1]], dtype=torch.float64)
    for token in range(5):
        expected = torch.zeros(2, dtype=torch.float64)
        for expert in range(4):
            expected += weights_TE[token, expert] * (experts.weight_EFD[expert] @ x_TD[token])
        torch.testing.assert_close(experts(x_TD, weights_TE)[token], expected)
