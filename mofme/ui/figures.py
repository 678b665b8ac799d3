"""Small pictures that explain a result, such as heat maps over the photo, and the widgets that show pictures."""

import io
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from mofme.files import atomic_file
from mofme.vision.restorer import RoutingMap
from mofme.vision.tiling import shrunk

FIGURE_SIDE = 640
# Low to high, readable in grey and by the colour-blind: anchors of matplotlib's "inferno", its dark end lightened.
RAMP = np.array([(40, 18, 84), (106, 23, 110), (174, 48, 92), (229, 92, 48), (251, 155, 6), (252, 232, 130)], float)


def thumbnail(rgb: Tensor, side: int = FIGURE_SIDE) -> Tensor:
    """Shrink a picture (3, H, W) so that its longer side is at most `side`; smaller pictures stay."""
    return shrunk(rgb, side)


def colour(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Colours (..., 3) in 0..255 for values (...) in [0, 1], dark violet for 0 up to light yellow for 1."""
    at = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(values, at, RAMP[:, channel]) for channel in range(3)], axis=-1)


def heat_map(rgb: Tensor, map_hw: Tensor) -> Image.Image:
    """Lay a coarse map (h, w) in [0, 1] over the greyed picture (3, H, W)."""
    size = (int(rgb.shape[-2]), int(rgb.shape[-1]))
    smooth = interpolate(map_hw[None, None].float(), size=size, mode="bilinear", align_corners=False)[0, 0]
    values = smooth.clamp(0, 1).cpu().numpy()
    grey = rgb.mean(0).clamp(0, 1).cpu().numpy()[..., None] * 190
    cover = (0.8 * values**0.7)[..., None]
    return Image.fromarray((grey * (1 - cover) + colour(values) * cover).round().astype(np.uint8))


def save_picture(picture: Tensor | Image.Image, path: Path) -> Path:
    """Write a small picture, as a tensor (3, H, W) in [0, 1], for showing only: a JPEG, whole or not at all."""
    if isinstance(picture, Tensor):
        picture = Image.fromarray((picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())
    encoded = io.BytesIO()
    picture.save(encoded, "jpeg", quality=88)
    with atomic_file(path) as file:
        file.write(encoded.getbuffer())
    return path


def telling_layer(routing: tuple[RoutingMap, ...]) -> RoutingMap:
    """The layer whose experts divide the picture among themselves most clearly (largest spread over places)."""
    return max(routing, key=lambda layer: float(layer.weights_EHW.float().std(dim=(1, 2), correction=0).mean()))


def expert_figures(rgb: Tensor, layer: RoutingMap, folder: Path) -> list[tuple[str, str]]:
    """One heat map per expert that did something, the busiest first, as (path, caption); `rgb` is (3, H, W), small."""
    share_E = layer.shares()
    # Not the maximum: a few strong spots would leave the rest dark.
    peak = layer.weights_EHW.float().quantile(0.99).clamp_min(1e-12)
    figures = []
    for expert in torch.argsort(share_E, descending=True).tolist():
        percent = 100 * float(share_E[expert])
        if percent < 0.5:
            continue
        path = folder / f"expert-{expert + 1}.jpg"
        save_picture(heat_map(rgb, layer.weights_EHW[expert] / peak), path)
        figures.append((str(path), f"Expert {expert + 1} · {percent:.0f} % of the picture"))
    return figures


def uncertainty_figure(rgb: Tensor, map_hw: Tensor, folder: Path) -> tuple[Path, str]:
    """The uncertainty map over the picture, stretched over the values it has, and its legend as HTML."""
    low, high = float(map_hw.min()), float(map_hw.max())
    path = folder / "uncertainty.jpg"
    save_picture(heat_map(rgb, (map_hw - low) / max(high - low, 0.02)), path)
    stops = ", ".join(f"rgb({red:.0f} {green:.0f} {blue:.0f})" for red, green, blue in RAMP)
    legend = (
        f'<div class="legend"><span>sure ({low:.2f})</span>'
        f'<i style="background: linear-gradient(90deg, transparent, {stops})"></i>'
        f"<span>unsure ({max(high, low + 0.02):.2f})</span></div>"
    )
    return path, legend


def comparison(
    label: str, elem_id: str, format: str = "png", height: int = 640, visible: bool = True
) -> gr.ImageSlider:
    """Two pictures of one size, on top of each other."""
    return gr.ImageSlider(
        label=label,
        type="filepath",
        format=format,
        interactive=False,
        max_height=height,
        buttons=["fullscreen"],
        elem_id=elem_id,
        visible=visible,
    )


def gallery(kind: str = "wide", columns: int = 3, **more: Any) -> gr.Gallery:
    """Small pictures with captions; `kind` is for the style sheet."""
    arguments = {"object_fit": "cover", "interactive": False, "buttons": [], "show_label": False, **more}
    return gr.Gallery(columns=columns, height="auto", elem_classes=["pictures", kind], **arguments)
