"""What a camera does to a picture after the weather: it sharpens, sets the tone, and compresses.

Sharpening and tone are on the restored picture, too: they are no weather, and are to be kept. What JPEG took away
cannot be had back: mostly it is kept as well, and in a few pictures of good quality taken off the input only.
"""

import torch
from kornia.enhance import jpeg_codec_differentiable
from kornia.filters import gaussian_blur2d
from torch import Tensor

from mofme.vision.weather.draw import Draw, on_some, per_picture

_SHARPENED_SHARE = 0.3
_TONED_SHARE = 0.5
_COMPRESSED_SHARE = 0.2
_INPUT_COMPRESSED_SHARE = 0.2
_JPEG_BLOCK = 16


def photograph(weathered: Tensor, clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Both pictures (B,3,H,W) in [0,1] as a camera would have taken them; sides are multiples of 16."""
    draw = Draw(generator, len(clean), clean.device)
    sharpened, toned, both, one = (
        draw.chance(share).tolist()
        for share in (_SHARPENED_SHARE, _TONED_SHARE, _COMPRESSED_SHARE, _INPUT_COMPRESSED_SHARE)
    )
    pair = torch.cat((weathered, clean), 1)
    pair = on_some(pair, sharpened, _sharpen, generator)
    pair = on_some(pair, toned, _set_tone, generator)
    pair = on_some(pair, both, lambda image, part: _compress(image, part, 50, 95), generator)
    weathered, clean = pair.split(3, 1)
    return on_some(weathered, one, lambda image, part: _compress(image, part, 80, 98), generator), clean


def _sharpen(pair: Tensor, draw: Draw) -> Tensor:
    soft = gaussian_blur2d(pair, 7, draw.uniform(0.6, 1.3)[:, None].expand(-1, 2), border_type="reflect")
    return pair + per_picture(draw.uniform(0.2, 1.2)) * (pair - soft)


def _set_tone(pair: Tensor, draw: Draw) -> Tensor:
    """Brightness, contrast, warmth and colour, alike on both pictures (B, 6, H, W)."""
    image = pair.unflatten(1, (2, 3))
    grey = image.mean(2, keepdim=True)
    image = grey + draw.uniform(0.85, 1.2)[:, None, None, None, None] * (image - grey)
    warmth = draw.uniform(-0.06, 0.06)[:, None] * torch.tensor([1.0, 0.0, -1.0], device=draw.device)
    image = image * (1 + warmth[:, None, :, None, None])
    image = 0.5 + draw.uniform(0.9, 1.12)[:, None, None, None, None] * (image - 0.5)
    return image.flatten(1, 2).clamp(0, 1) ** per_picture(torch.exp(draw.uniform(-0.2, 0.2)))


def _compress(image: Tensor, draw: Draw, low: int, high: int) -> Tensor:
    """JPEG of a random quality, the same for all pictures of three channels that stand one behind the other."""
    if image.shape[-2] % _JPEG_BLOCK or image.shape[-1] % _JPEG_BLOCK:
        raise ValueError(f"height and width must be multiples of {_JPEG_BLOCK}, got {tuple(image.shape)}")
    quality = draw.uniform(low, high)
    parts = [jpeg_codec_differentiable(part.contiguous(), quality) for part in image.split(3, 1)]
    return (torch.cat(parts, 1) * 255).round() / 255
