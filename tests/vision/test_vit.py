import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mofme.vision.nets.blocks import FeedForwardKind
from mofme.vision.nets.vit import PlainViT, _Attention, grid_positions

KINDS: tuple[FeedForwardKind, ...] = ("dense", "moe", "mofme", "generated")


def tiny(kind: FeedForwardKind = "mofme") -> PlainViT:
    torch.manual_seed(0)
    return PlainViT(kind, num_experts=4, dim=16, heads=2)


def awake(net: PlainViT) -> PlainViT:
    nn.init.normal_(net.decoder.weight, std=0.1)
    return net


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_any_size_that_is_a_multiple_of_8(kind: FeedForwardKind, rows: int, columns: int) -> None:
    image = torch.rand(2, 3, 8 * rows, 8 * columns)
    assert torch.equal(tiny(kind)(image), image), "an untrained net returns its input"
    restored = awake(tiny(kind))(image)
    assert restored.shape == image.shape
    assert not torch.allclose(restored, image)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny()(torch.rand(1, 3, 16, 20))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind: FeedForwardKind) -> None:
    net = awake(tiny(kind))
    net(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_every_patch_sees_every_other() -> None:
    net = awake(tiny())
    image = torch.rand(1, 3, 24, 24, requires_grad=True)
    (net(image) - image)[..., :8, :8].sum().backward()
    assert image.grad is not None
    assert (nn.functional.avg_pool2d(image.grad.abs(), 8) > 0).all()


def test_attention_is_that_of_torch() -> None:
    ours, theirs = _Attention(16, 2), nn.MultiheadAttention(16, 2, batch_first=True)
    theirs.in_proj_weight, theirs.in_proj_bias = ours.query_key_value.weight, ours.query_key_value.bias
    theirs.out_proj = ours.project
    x_BHWD = torch.rand(3, 4, 5, 16)
    tokens = x_BHWD.flatten(1, 2)
    expected = theirs(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(ours(x_BHWD).flatten(1, 2), expected)


def test_positions_by_hand() -> None:
    # D = 8: two frequencies, 1 and 10000^(-1/2) = 1/100; row 1 in the first half, column 2 in the second.
    expected = [f(a) for a1 in (1, 2) for f in (math.sin, math.cos) for a in (a1, a1 / 100)]
    torch.testing.assert_close(grid_positions(3, 4, 8)[1, 2], torch.tensor(expected))


def test_positions_do_not_depend_on_the_size() -> None:
    small, large = grid_positions(3, 5, 16), grid_positions(9, 7, 16)
    torch.testing.assert_close(large[:3, :5], small)
    assert len(large.flatten(0, 1).round(decimals=4).unique(dim=0)) == 9 * 7


def test_parameters_by_hand() -> None:
    # Patches of 192 numbers, D = 384, 1536 hidden features.
    linear = {"encoder": (192, 384), "decoder": (384, 192)}
    block = {"q, k, v": (384, 1152), "project": (384, 384), "expand": (384, 1536), "contract": (1536, 384)}
    norms = 2 * 2 * (2 * 384) + 2 * 384
    weights = sum(i * o + o for i, o in linear.values()) + 2 * sum(i * o + o for i, o in block.values()) + norms
    with torch.device("meta"):
        net = PlainViT("dense")
    assert sum(p.numel() for p in net.parameters()) == weights == 3_697_728
