"""A start button and its Cancel button: one is live while the other is not."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from mofme.ui.jobs import Jobs


def run_and_cancel(
    start: gr.Button,
    cancel: gr.Button,
    jobs: Jobs,
    work: Callable[..., Any],
    inputs: Sequence[Component],
    outputs: Sequence[Any],
    **event: Any,
) -> None:
    """Run `work` on a click of `start`; `cancel` takes it out of the queue, or stops it at its next check."""
    buttons = [start, cancel]

    def set_running(running: bool) -> list[gr.Button]:
        return [gr.Button(interactive=not running), gr.Button(interactive=running)]

    def stop(request: gr.Request) -> list[gr.Button]:
        jobs.cancel(request)
        gr.Info("Stopped.")
        return set_running(False)

    clicked = start.click(
        lambda: set_running(True),
        None,
        buttons,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    run = clicked.then(work, inputs, outputs, concurrency_limit=1, api_visibility="private", **event)
    run.then(
        lambda: set_running(False),
        None,
        buttons,
        queue=False,
        show_progress="hidden",
        api_visibility="private",
    )
    cancel.click(stop, None, buttons, cancels=[run], queue=False, show_progress="hidden", api_visibility="private")
