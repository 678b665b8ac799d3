import math

import pytest
import torch

from mofme.core.routers.attention import AttentionRouter
from mofme.core.routers.mlp import MLPRouter


def test_it_is_the_loop_in_double_precision() -> None:
    torch.manual_seed(0)
    router = MLPRouter(dim=6, num_experts=5, top_k=2, hidden=4).double()
    x_TD = torch.randn(7, 6, dtype=torch.float64)
    decision = router(x_TD)
    for token in range(7):
        hidden = [sum(router.expand.weight[h, d].item() * x_TD[token, d].item() for d in range(6)) for h in range(4)]
        hidden = [value / (1 + math.exp(-value)) for value in hidden]
        logits = [sum(router.score.weight[e, h].item() * hidden[h] for h in range(4)) for e in range(5)]
        best = sorted(range(5), key=lambda e: -logits[e])[:2]
        total = sum(math.exp(logits[e]) for e in best)
        expected = [math.exp(logits[e]) / total if e in best else 0.0 for e in range(5)]
        assert decision.logits_TE[token].tolist() == pytest.approx(logits, abs=1e-12)
        assert decision.weights_TE[token].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("dim", "experts"), [(96, 8), (128, 16), (64, 32)])
def test_it_has_as_many_parameters_as_the_attention_router(dim: int, experts: int) -> None:
    mine, theirs = (
        sum(p.numel() for p in router.parameters())
        for router in (MLPRouter(dim, experts), AttentionRouter(dim, experts))
    )
    assert abs(mine - theirs) <= (dim + experts) / 2  # half a hidden feature
