"""The fold-out of choices that the tabs Restore, Batch and Video share."""

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

TILES = [("Automatic", 0), ("256 pixels", 256), ("512 pixels", 512), ("1024 pixels", 1024)]


@dataclass(frozen=True)
class Options:
    """The widgets of the fold-out, in the order of the fields of `Settings`."""

    model: gr.Dropdown
    strength: gr.Slider
    ensemble: gr.Checkbox
    tile: gr.Dropdown

    @property
    def widgets(self) -> list[Component]:
        return [self.model, self.strength, self.ensemble, self.tile]


def options(models: list[str], thing: str = "photo") -> Options:
    """Draw the fold-out, closed; `thing` is what gets restored."""
    with gr.Accordion("Options", open=False):
        strength = gr.Slider(
            0, 1, value=1, step=0.05, label="Strength", info=f"0 leaves the {thing} as it is, 1 restores fully."
        )
        with gr.Row():
            model = gr.Dropdown(
                models,
                value=models[0] if models else None,
                label="Model",
                info="Larger is better, and slower.",
            )
            tile = gr.Dropdown(TILES, value=0, label="Tile size", info="Smaller tiles need less memory.")
        ensemble = gr.Checkbox(
            label="Take more care", info="Averages four looks at each picture: mostly better, four times slower."
        )
    return Options(model, strength, ensemble, tile)
