"""The fold-out in which a visitor loads a table of models' answers and has a router trained on it."""

from pathlib import Path
from typing import Any

import gradio as gr

from mofme.errors import TableError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import KEEP_SECONDS, plain_errors
from mofme.ui.services import Services
from mofme.ui.uploads import file_box

_ESTIMATORS = [("Nearest neighbours", "knn"), ("Straight lines", "linear"), ("Everything together", "ensemble")]

_EXAMPLE = """
    prompt,task,quality:small,cost:small,quality:large,cost:large
    What is 2 + 2?,arithmetic,1,0.00001,1,0.0004
    Prove it.,logic,0,0.00002,0.8,0.0009
"""


def table_box(services: Services) -> gr.State:
    """Draw the fold-out, closed. The state holds the visitor's OwnRouter, or None as long as there is none."""
    limits = services.limits
    checked = gr.State(None, time_to_live=KEEP_SECONDS)
    own = gr.State(None, time_to_live=KEEP_SECONDS)
    with gr.Accordion("Load your own table", open=False, elem_id="own-table"):
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                gr.Markdown(
                    "A CSV or Parquet file of prompts that your models have answered: `prompt`, `task` (if you know "
                    "it), and for each model `quality:<name>` from 0 to 1 and `cost:<name>` in dollars.\n"
                    f"{_EXAMPLE}\n"
                    f"Up to {limits.table_prompts:,} prompts, {limits.table_models} models and "
                    f"{limits.table_megabytes:g} MB. The router that is trained on it is yours alone, and is forgotten "
                    "when you close the page.",
                    elem_classes="note",
                )
                table = file_box(label="Your table", file_types=[".csv", ".parquet"], height=140, elem_id="table")
                repair = gr.Button("Repair it and go on", visible=False, elem_id="repair")
                estimator = gr.Radio(_ESTIMATORS, value="knn", label="Learn by", info="The last takes minutes.")
                with gr.Row():
                    start = gr.Button(
                        "Train a router", variant="primary", interactive=False, scale=3, min_width=160, elem_id="train"
                    )
                    cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
                forget = gr.Button("Use the shipped router again", visible=False, elem_id="forget")
            with gr.Column(scale=6, min_width=320):
                found = gr.HTML(
                    '<p class="note">Whether routing would pay for your models is said here.</p>',
                    padding=False,
                    elem_id="found",
                )
                status = gr.HTML(padding=False, elem_classes="status", elem_id="training", min_height=40)
        comparison = gr.HTML(padding=False, elem_id="own-comparison")

    def check(path: str | None, repaired: bool = False) -> list[Any]:
        from mofme.ui.llm_routing.own_router import check_table, table_html

        with plain_errors():
            state = check_table(Path(path), repaired, limits) if path else None
            return [
                state,
                table_html(state) if state else "",
                gr.Button(visible=bool(state and state.repaired)),
                gr.Button(interactive=bool(state and state.table)),
            ]

    def train(
        checked: Any,
        estimator: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> list[Any]:
        from mofme.ui.llm_routing.own_router import own_html, train_own

        with plain_errors():
            if checked is None or checked.table is None:
                raise TableError("Load a table first.")
            with services.training.running(request, limits.training_seconds) as job:
                trained = train_own(checked.table, estimator, job, lambda share, words: progress(share, desc=words))
            words = "<p><b>The prompt box above now asks your router.</b></p>"
            return [trained, words, own_html(trained), gr.Button(visible=True)]

    checking: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "check-table", "api_visibility": "private"}
    shown = [checked, found, repair, start]
    table.change(check, table, shown, **checking)
    repair.click(lambda path: check(path, True), table, shown, **checking)
    run_and_cancel(
        start,
        cancel,
        status,
        services.training,
        train,
        [checked, estimator],
        [own, status, comparison, forget],
        show_progress_on=status,
        concurrency_id="train",
    )
    # In the queue, or nobody is told that the state has changed.
    forget.click(
        lambda: [None, "", "", gr.Button(visible=False)],
        None,
        [own, status, comparison, forget],
        show_progress="hidden",
        api_visibility="private",
    )
    return own
