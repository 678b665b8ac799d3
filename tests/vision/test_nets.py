import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mofme.core.moe import moe_layers, observe_routing
from mofme.vision.export import FoldedBlock, folded
from mofme.vision.models import SIZES
from mofme.vision.nets.unet import FeedForwardBlock, FeedForwardKind, RestorationNet, feed_forward

KINDS: tuple[FeedForwardKind, ...] = ("dense", "moe", "mofme", "generated")
ROUTERS: tuple[FeedForwardKind, ...] = ("mofme-linear", "mofme-attention", "mofme-mixture")
ALL = (*KINDS, *ROUTERS)


def tiny(kind: FeedForwardKind = "mofme") -> RestorationNet:
    torch.manual_seed(0)
    return RestorationNet(widths=(8, 12, 16), blocks=(1, 1, 1), feed_forward=kind, num_experts=4)


def awake(net: nn.Module) -> nn.Module:
    """Random values instead of the zeros that a net starts with, or nothing would depend on anything."""
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), batch=st.integers(1, 2))
def test_any_size_that_is_a_multiple_of_8(kind: FeedForwardKind, rows: int, columns: int, batch: int) -> None:
    image = torch.rand(batch, 3, 8 * rows, 8 * columns)
    assert torch.equal(tiny(kind)(image).image, image), "an untrained net returns its input"
    output = awake(tiny(kind))(image)
    assert output.weather_BW.shape == (batch, 4)
    assert output.image.shape == image.shape and output.image.isfinite().all()
    assert not torch.allclose(output.image, image)


def test_the_nets_differ_in_their_feed_forwards_only() -> None:
    shapes = [
        {name: parameter.shape for name, parameter in tiny(kind).named_parameters() if ".layer." not in name}
        for kind in KINDS
    ]
    assert shapes[0] == shapes[1] == shapes[2] == shapes[3]
    assert len(shapes[0]) < len(list(tiny("dense").named_parameters()))


def test_a_pictures_own_context_may_be_handed_over() -> None:
    net = awake(tiny())
    image, other = torch.rand(2, 1, 3, 32, 40)
    own = net(image).image
    torch.testing.assert_close(net(image, net.encode_context(image)).image, own)
    assert not torch.allclose(net(image, net.encode_context(other)).image, own)

    neutral = torch.zeros(1, 2, 16)
    for part in (0, 1):  # scale and shift
        context = neutral.clone()
        context[:, part] = 1
        assert not torch.allclose(net(image, context).image, net(image, neutral).image)


@pytest.mark.parametrize("size", [(12, 16), (16, 12)])
def test_other_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        tiny()(torch.rand(1, 3, *size))


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_every_parameter(kind: FeedForwardKind) -> None:
    net = awake(tiny(kind))
    output = net(torch.rand(2, 3, 64, 64))
    (output.image.square().mean() + output.weather_BW.square().mean()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_mofme_has_few_parameters_more_than_dense_and_moe_has_many() -> None:
    # d features, 2d hidden. A feed-forward: 2 * d * 2d weights, 2d + d biases = 4 d^2 + 3 d; a router: E d.
    # MoE: 15 more feed-forwards and a router; MoFME: E vectors gamma, as many beta, and a router.
    # The small net holds 4 feed-forwards of d = 64 and 4 of d = 96.
    moe = sum(4 * (15 * (4 * d * d + 3 * d) + 16 * d) for d in (64, 96))
    mofme = sum(4 * (2 * 16 * d + 16 * d) for d in (64, 96))
    assert (moe, mofme) == (3_233_920, 30_720)

    arguments = {name: value for name, value in SIZES["small"].items() if name != "feed_forward"}
    dense = count(RestorationNet(**arguments, feed_forward="dense"))
    assert count(RestorationNet(**arguments, feed_forward="moe")) == dense + moe
    assert count(RestorationNet(**arguments, feed_forward="mofme")) == dense + mofme


def test_one_expert_is_allowed_and_an_unknown_feed_forward_is_not() -> None:
    for kind in ALL:
        assert feed_forward(kind, 8, 16, num_experts=1)(torch.rand(2, 3, 5, 8)).shape == (2, 3, 5, 8)
    with pytest.raises(ValueError, match=r"dense, moe, .*mofme.* got 'sparse'"):
        feed_forward("sparse", 8, 16, 4)  # type: ignore[arg-type]


def test_a_block_does_the_same_as_that_of_tokens() -> None:
    torch.manual_seed(0)
    block = FeedForwardBlock(12, feed_forward("mofme", 12, 24, 6)).eval()
    for parameter in block.norm.parameters():  # away from where they do nothing
        nn.init.normal_(parameter, mean=0.7, std=0.3)
    x = torch.randn(2, 12, 5, 7)
    with torch.no_grad(), observe_routing(block) as observed:
        expected = block(x)
        other = FoldedBlock(block.norm, block.layer.router, block.layer.experts)
        torch.testing.assert_close(other(x), expected, atol=1e-4, rtol=1e-4)
    uncertainty_T = observed[0].decision.uncertainty_T
    assert uncertainty_T is not None
    torch.testing.assert_close(other.uncertainty[:, 0].flatten(), uncertainty_T, atol=1e-4, rtol=1e-4)


def test_only_blocks_of_mofme_are_folded_and_the_net_stays() -> None:
    for kind, left in (("mofme", 0), ("mofme-sampled", 3), ("mofme-linear", 3), ("dense", 0)):
        net = RestorationNet([8, 8, 8], [1, 1, 1], kind, 6)
        assert len(moe_layers(folded(net))) == left
        assert len(moe_layers(net)) == (0 if kind == "dense" else 3)
