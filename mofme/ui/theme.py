"""How the app looks: one calm theme in light and dark, from fonts the visitor already has."""

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors

FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]


def theme() -> gr.themes.Base:
    """Slate and sea green, soft corners, no shadows."""
    return gr.themes.Default(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.slate,
        radius_size="lg",
        font=FONT,
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_600",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",  # readable on white
        block_shadow="none",
        block_label_background_fill="*background_fill_secondary",
        block_label_text_color="*body_text_color_subdued",
        color_accent="*primary_600",
    )


_BESIDE = (Path(__file__).with_name(name) for name in ("app.css", "on_the_page.js", "open_linked_tab.js"))
CSS, ON_THE_PAGE, OPEN_LINKED_TAB = (path.read_text(encoding="utf-8") for path in _BESIDE)
