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


CSS = Path(__file__).with_name("app.css").read_text(encoding="utf-8")

# A picture in the clipboard goes into the upload box wherever on the page the visitor presses Ctrl+V. The address names
# the open tab, so that a link, a reload or a bookmark comes back to it.
ON_THE_PAGE = """
() => {
    document.addEventListener("paste", event => {
        const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
        const input = document.querySelector("#photo input[type=file]");
        if (!file || !input) return;
        const files = new DataTransfer();
        files.items.add(file);
        input.files = files.files;
        input.dispatchEvent(new Event("change", { bubbles: true }));
    });
    document.addEventListener("click", event => {
        const tab = event.target.closest("#tabs > .tab-wrapper [role=tab]");
        if (!tab) return;
        const address = new URL(location);
        address.searchParams.set("tab", tab.textContent.trim().toLowerCase());
        history.replaceState(history.state, "", address);
    });
}
"""

# What is no tab here may be a page of the Lab.
OPEN_LINKED_TAB = """
() => {
    const name = new URLSearchParams(location.search).get("tab")?.toLowerCase().replaceAll(" ", "-");
    if (PAGES.includes(name)) location.replace(name);
    return name ? { selected: name, __type__: "update" } : { __type__: "update" };
}
"""
