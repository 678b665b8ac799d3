"""One tab alone, served from a thread of the tests: quick to start, with toys for shipped models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from mofme.ui.examples import examples_folder
from mofme.ui.window import CSS, theme


@contextmanager
def one_tab(draw: Callable[[], None]) -> Iterator[str]:
    """The address of a page that holds what `draw` draws."""
    with gr.Blocks(analytics_enabled=False) as page:
        draw()
    _, address, _ = page.queue().launch(
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        _frontend=False,  # as the app: a busy machine is no failure
        footer_links=[],
        theme=theme(),
        css=CSS,
        allowed_paths=[str(examples_folder())],
    )
    try:
        yield address
    finally:
        page.close()
