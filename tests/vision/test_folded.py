"""Blocks as 1x1 convolutions against the blocks of tokens that they stand for."""

import torch
from torch import nn

from mofme.core.moe import moe_layers, observe_routing
from mofme.vision.nets.blocks import FeedForwardBlock, feed_forward
from mofme.vision.nets.folded import FoldedBlock, folded
from mofme.vision.nets.unet import RestorationNet


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
