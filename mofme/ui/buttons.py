"""A start button and its Cancel button: one is live while the other is not."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import get_blocks_context

from mofme.ui.jobs import Jobs

# Buttons change at once, without a place in the queue, and are no business of the API's callers.
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# Waits for what has come to take its place: before that the page may be too short to scroll so far.
_SCROLL = """() => setTimeout(() => {{
  const shown = document.querySelector("#{}");
  if (shown.getBoundingClientRect().top > window.innerHeight / 2) shown.scrollIntoView({{behavior: "smooth"}});
}}, 300)"""


def run_and_cancel(
    start: gr.Button,
    cancel: gr.Button,
    status: Component,
    jobs: Jobs,
    work: Callable[..., Any],
    inputs: Sequence[Component],
    outputs: Sequence[Any],
    brought_into_view: Component | None = None,
    **event: Any,
) -> None:
    """Run `work` on a click of `start`; `cancel`, or closing the page, takes it out of the queue or stops it at its
    next check.

    `status` is where words stand about how the work goes. `brought_into_view`, which needs an `elem_id`, is scrolled to
    at the click, and again when it is done, where it stands far down, as on a phone; Gradio's own `scroll_to_output`
    leaves the page where it is.
    """
    buttons = [start, cancel]

    def set_running(running: bool) -> list[gr.Button]:
        return [gr.Button(interactive=not running), gr.Button(interactive=running)]

    def stop(request: gr.Request) -> list[Any]:
        jobs.cancel(request)
        return ["Stopped.", *set_running(False)]

    scroll = _SCROLL.format(brought_into_view.elem_id) if brought_into_view else None
    clicked = start.click(lambda: set_running(True), None, buttons, js=scroll, **AT_ONCE)
    run = clicked.then(work, inputs, outputs, concurrency_limit=1, api_visibility="private", **event)
    # `then` alone is not called after an error.
    for after in (run.success, run.failure):
        after(lambda: set_running(False), None, buttons, js=scroll, **AT_ONCE)
    cancel.click(stop, None, [status, *buttons], cancels=[run], **AT_ONCE)
    if page := get_blocks_context():
        page.root_block.unload(jobs.cancel)
