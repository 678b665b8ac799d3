"""The plain ViT of MoFME (arXiv 2312.16610), kept as the reference: two blocks of attention and feed-forward.

What differs from the authors' code: positions are computed, not learnt for 240 x 240, so any size goes in; the decoder
is one linear layer. Parameters in millions, in brackets as counted in the authors' code, which has 5 to 6 more outside
the experts:

    feed-forward   E = 4         E = 8         E = 16        E = 64   E = 128
    dense           3.7 (8.7), without experts
    moe            10.8 (15.8)   20.2 (25.3)   39.2 (44.2)   152.6    303.9 (309.1)
    generated       6.1 (11.7)    8.4 (14.1)   13.2 (18.8)    41.6     79.5 (85.3)
    mofme           3.7           3.7           3.7            3.8      4.0
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.vision.nets.blocks import FeedForwardKind, feed_forward

PATCH = 8


class PlainViT(nn.Module):
    """(B, 3, H, W) in [0, 1], H and W multiples of 8 -> restored (B, 3, H, W), not clamped.

    Each patch of 8 x 8 pixels is a token; the decoder adds a correction to the picture, which starts at 0.
    """

    def __init__(
        self,
        feed_forward: FeedForwardKind = "mofme",
        num_experts: int = 16,
        dim: int = 384,
        depth: int = 2,
        heads: int = 6,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.encoder = nn.Linear(3 * PATCH**2, dim)
        self.blocks = nn.Sequential(
            *(_Block(dim, heads, feed_forward, num_experts, expansion * dim) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(dim)
        self.decoder = nn.Linear(dim, 3 * PATCH**2)
        nn.init.zeros_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[-2] % PATCH or image.shape[-1] % PATCH:
            raise ValueError(f"height and width must be multiples of {PATCH}, got {tuple(image.shape)}")
        x_BHWD = self.encoder(F.pixel_unshuffle(image, PATCH).permute(0, 2, 3, 1))
        height, width = x_BHWD.shape[1:3]
        x_BHWD = self.blocks(x_BHWD + grid_positions(height, width, self.dim).to(x_BHWD))
        correction = self.decoder(self.norm(x_BHWD)).permute(0, 3, 1, 2)
        return image + F.pixel_shuffle(correction, PATCH)


def grid_positions(height: int, width: int, dim: int) -> Tensor:
    """Fixed sine and cosine embeddings (H, W, D) of a grid: the first half of D tells the row, the second the column.

    Frequencies fall from 1 to 1/10000 (Vaswani et al. 2017); D is a multiple of 4.
    """
    frequencies = torch.exp(torch.arange(dim // 4) * (-math.log(10000.0) / (dim // 4)))

    def encode(length: int) -> Tensor:
        angles = torch.arange(length)[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    rows, columns = encode(height)[:, None], encode(width)[None, :]
    return torch.cat([rows.expand(height, width, -1), columns.expand(height, width, -1)], dim=-1)


class _Block(nn.Module):
    """Pre-norm transformer block on a grid of tokens (B, H, W, D)."""

    def __init__(self, dim: int, heads: int, kind: FeedForwardKind, num_experts: int, hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.layer = feed_forward(kind, dim, hidden, num_experts)

    def forward(self, x_BHWD: Tensor) -> Tensor:
        x_BHWD = x_BHWD + self.attention(self.norm1(x_BHWD))
        return torch.add(x_BHWD, self.layer(self.norm2(x_BHWD)))


class _Attention(nn.Module):
    """Multi-head self-attention over all positions of a grid."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x_BHWD: Tensor) -> Tensor:
        tokens = self.query_key_value(x_BHWD.flatten(1, 2)).unflatten(-1, (3, self.heads, -1))
        query, key, value = tokens.permute(2, 0, 3, 1, 4)  # each (B, heads, tokens, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
        y_BHWD: Tensor = self.project(mixed.unflatten(1, x_BHWD.shape[1:3]))
        return y_BHWD
