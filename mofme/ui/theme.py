"""How the app looks: one calm theme in light and dark, from fonts the visitor already has."""

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


# No commas inside :is(...) here: Gradio splits selectors at every comma.
CSS = """
.gradio-container { width: 100%; min-width: 0; max-width: 1280px !important; margin: 0 auto !important; }
#header h1 { margin: 0; font-size: 1.6rem; }
#header p { margin: 2px 0 0; }
#header p, .note, .note p { color: var(--body-text-color-subdued); }
#comparison:not(:has(img)) { min-height: 300px; }
.html-container { padding: 0 !important; }

/* Tabs that do not fit go onto a second line, not into a menu. Gradio decides by the width of a hidden copy of them. */
.tab-container.visually-hidden button { width: 1px; padding: 0; font-size: 0; }
.tab-wrapper { height: auto !important; }
.tab-container[role=tablist] { flex-wrap: wrap; height: auto; overflow: visible; }
.tab-container[role=tablist] button { height: var(--size-8); }
#groups > .tab-wrapper button { font-size: 1.05rem; font-weight: 600; }
.dark { --color-accent: var(--primary-400); }

/* Gradio keeps 320 pixels for any gallery and cuts captions off. */
.pictures .grid-wrap { min-height: 0; max-height: none; padding: 0; }
.pictures .grid-container { padding: 0; }
.pictures.block { border-width: 0 !important; background: none; padding: 0; }
.pictures:not(:has(img)) { display: none; }
.pictures.four .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)); }
.pictures.four .thumbnail-item { min-width: 0; }
#archive, #report { padding-inline: 8px; white-space: nowrap; }
.pictures .caption-label { inset: auto 0 0 0; max-width: none; border: none; border-radius: 0; white-space: normal;
    opacity: 1 !important; text-align: center; padding: 2px 4px; }

.status progress { width: 100%; height: 10px; appearance: none; border: none; border-radius: 5px; overflow: hidden;
    background: var(--border-color-primary); }
.status progress::-webkit-progress-bar { background: var(--border-color-primary); }
.status progress::-webkit-progress-value { background: var(--color-accent); }
.status progress::-moz-progress-bar { background: var(--color-accent); }

.table { overflow-x: auto; border: 1px solid var(--border-color-primary); border-radius: var(--block-radius); }
.table table { width: 100%; margin: 0 !important; border: none !important; border-collapse: collapse;
    font-size: var(--text-sm); }
.table tr { border: none; }
.table tr > * { padding: 6px 10px; text-align: left; border: none; white-space: nowrap; }
.table tr + tr > * { border-top: 1px solid var(--border-color-primary); }
.table tr > td:first-child { min-width: 8em; max-width: 16em; white-space: normal; overflow-wrap: break-word; }
.table tr > td.problem { color: var(--error-text-color); min-width: 12em; white-space: normal; }

.table.numbers tr > * + * { text-align: right; font-variant-numeric: tabular-nums; }
.status .problem { color: var(--error-text-color); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 24px; }
.plots svg { width: 100%; max-width: 460px; color: inherit; }
.tree { overflow-x: auto; }
.tree svg { color: inherit; max-width: none; }
.strips .grid-container { grid-template-columns: minmax(0, 1fr) !important; grid-auto-rows: auto !important; }
.strips .thumbnail-item { aspect-ratio: auto; }
.result { border-top: 1px solid var(--border-color-primary); padding: 10px 0; }
.result summary { cursor: pointer; }
.result > .note { margin: 8px 0; }
.result summary span { color: var(--body-text-color-subdued); }
.result img { max-width: 100%; margin: 12px 0; border-radius: var(--block-radius); }

.choice { font-size: 1.3rem; margin: 0; }
#answer .plots, #answer h4 { margin-top: 20px; }
.table.models td:first-child { min-width: 0; }
.table.models td:nth-child(2) { width: 30%; }
.table.models i { display: block; height: 8px; border-radius: 4px; background: var(--border-color-primary); }
.table.models i b { display: block; height: 100%; border-radius: 4px; background: var(--color-accent); }
.table .chosen td { background: var(--background-fill-secondary); font-weight: 600; }
.table.neighbours td { white-space: normal; }
.table.neighbours .text td { max-width: none; border-top: none; padding-top: 0; color: var(--body-text-color-subdued);
    overflow-wrap: anywhere; }
.table.heat tr > * + * { text-align: center !important; }
.table.heat td + td { background: color-mix(in srgb, var(--color-accent) var(--heat, 0%), transparent); }
.table.heat tr > *:first-child { position: sticky; left: 0; background: var(--background-fill-primary); }
.table.grid { max-height: 70vh; overflow: auto; }
.table.grid table { font-size: var(--text-xs); }
.table + .note { margin-top: 8px; }
.plots + .note { margin-top: 12px; }
.table.grid tr > * { padding: 2px 3px; min-width: 1.9em; }
.table.grid tr > *:first-child { min-width: 4.5em; }
.table.grid td.first { border-left: 6px solid var(--background-fill-primary); }
.table.grid thead { position: sticky; top: 0; z-index: 1; background: var(--background-fill-primary); }

.bars, .legend { display: grid; gap: 8px; }
.bar { display: grid; grid-template-columns: 6em 1fr 3.5em; align-items: center; gap: 10px; }
.bar span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.bar i { height: 10px; border-radius: 5px; background: var(--border-color-primary); overflow: hidden; }
.bar b { display: block; height: 100%; background: var(--color-accent); }
.legend { grid-template-columns: auto 1fr auto; align-items: center; }
.legend i { height: 10px; border-radius: 5px; }

@media (max-width: 640px) {
    .gradio-container > .main { padding: 12px !important; }
    .tab-container[role=tablist] button { padding-inline: 10px; }
    .pictures.wide .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)); }
    .table.numbers tr > * { white-space: normal; padding: 6px; }
    .table.numbers tr > td:first-child { min-width: 5em; }
    .table.files tr > *:nth-child(3) { display: none; }
    .table.files tr > *:nth-child(5) { display: none; }
}
"""

# A picture in the clipboard goes into the upload box wherever on the page the visitor presses Ctrl+V.
PASTE_ANYWHERE = """
() => document.addEventListener("paste", event => {
    const file = [...event.clipboardData.files].find(file => file.type.startsWith("image/"));
    const input = document.querySelector("#photo input[type=file]");
    if (!file || !input) return;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
})
"""
