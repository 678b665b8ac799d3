"""Upload boxes that hand on the very bytes of the file, and only of files that came through an upload."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.data_classes import ImageData


def photo_box(elem_id: str) -> gr.Image:
    """A box for one picture: drop, click or paste. The function behind it receives the path of the untouched file."""
    box = gr.Image(
        type="filepath",
        image_mode=None,
        label="Your photo",
        show_label=False,
        sources=["upload", "clipboard"],
        height=300,
        elem_id=elem_id,
        placeholder="Drop a photo here\nor click to choose one",
        alt_text="Your photo: this browser cannot show its format, but it can be restored.",
        buttons=[],
    )
    # Gradio would open the picture first: no word to the user if it is broken, and a re-encoded copy in some modes.
    box.preprocess = _path_of  # type: ignore[method-assign]
    refuse_addresses(box)
    return box


def file_box(**arguments: Any) -> gr.File:
    """A box for one file that is no photo. The function behind it receives its path."""
    box = gr.File(type="filepath", **arguments)
    refuse_addresses(box)
    return box


def files_box(**arguments: Any) -> gr.File:
    """A box for many files, pictures or ZIP archives. The function behind it receives their paths."""
    box = gr.File(file_count="multiple", type="filepath", **arguments)
    refuse_addresses(box)
    return box


def refuse_addresses(box: Component) -> None:
    """Callers of the API may pass an address instead of a file; the server must not fetch it for them."""
    move = box.async_move_resource_to_block_cache

    async def only_files(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).lower().startswith(("http:", "https:")):
            raise gr.Error("Upload the file itself: addresses are not fetched.", print_exception=False)
        return await move(url_or_file_path)

    box.async_move_resource_to_block_cache = only_files  # type: ignore[method-assign]


def _path_of(payload: ImageData | None) -> str | None:
    if payload is None:
        return None
    if not payload.path:
        raise gr.Error("Upload the picture as a file.", print_exception=False)
    return payload.path
