"""The fold-out in which a visitor trains routers side by side on texts with classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.errors import MofmeError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import KEEP_SECONDS, Jobs, plain_errors
from mofme.ui.lora_mixture.choices import ARMS, ONE, TWO
from mofme.ui.services import Services
from mofme.ui.uploads import file_box


def training_box(services: Services) -> gr.State:
    """Draw the fold-out, closed. The state holds the visitor's OwnMixture, or None as long as there is none."""
    limits, jobs = services.limits, Jobs()
    own = gr.State(None, time_to_live=KEEP_SECONDS)
    with gr.Accordion("Train one yourself", open=False, elem_id="own-mixture"), gr.Row():
        with gr.Column(scale=4, min_width=320):
            table = file_box(label="Texts of your own (CSV)", file_types=[".csv"], height=140)
            gr.Markdown(
                f"A CSV holds `text` and `label`; up to {limits.table_prompts:,} texts are used. Without one, our "
                "196 prompts of seven kinds are. Near-duplicates are never on both sides when a fifth is held back.",
                elem_classes="note",
            )
            arms = gr.CheckboxGroup(list(ARMS), value=[ONE, TWO], label="Routers", elem_id="mixture-arms")
            steps = gr.Slider(20, 300, value=60, step=10, label="Steps", info="About a minute for two routers at 60.")
            with gr.Row():
                start = gr.Button("Train", variant="primary", scale=3, min_width=160, elem_id="mixture-train")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            forget = gr.Button("Ask the shipped mixture again", visible=False, elem_id="mixture-forget")
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">All begin alike and learn from the same texts in the same order.</p>',
                padding=False,
                elem_classes="status",
                elem_id="mixture-training",
                min_height=40,
            )

    def run(path: str | None, arms: Sequence[str], steps: float, request: gr.Request, progress: gr.Progress) -> Any:
        if not arms:
            raise MofmeError("Choose at least one router.")
        progress(0, desc="Reading the texts")
        from mofme.ui.lora_mixture.own_mixture import read_texts, train_arms

        chosen = [name for name in ARMS if name in arms]
        with jobs.running(request, limits.training_seconds) as job:
            task = read_texts(Path(path) if path else None, limits)
            return train_arms(task, chosen, int(steps), job, lambda share, words: progress(share, desc=words))

    def train_and_show(
        path: str | None,
        arms: list[str],
        steps: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> list[Any]:
        with plain_errors():
            trained = run(path, arms, steps, request, progress)
            from mofme.ui.lora_mixture.own_mixture import own_html

            return [trained, own_html(trained), gr.Button(visible=trained.mixture is not None)]

    def train_api(
        path: str | None,
        arms: list[str],
        steps: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[str, Any]:
        with plain_errors():
            trained = run(path, arms, steps, request, progress)
            from mofme.ui.lora_mixture.own_mixture import own_values

            return own_values(trained)

    inputs = [table, arms, steps]
    run_and_cancel(
        start,
        cancel,
        status,
        jobs,
        train_and_show,
        inputs,
        [own, status, forget],
        show_progress_on=status,
        concurrency_id="train-mixture",
    )
    # In the queue, or nobody is told that the state has changed.
    forget.click(
        lambda: [None, "", gr.Button(visible=False)],
        None,
        [own, status, forget],
        show_progress="hidden",
        api_visibility="private",
    )
    gr.Button(visible=False).click(
        train_api,
        inputs,
        gr.JSON(label="trained", visible=False),
        api_name="train_mixture_of_routers",
        api_description=(
            "Train routers side by side on a CSV of text and label, or without one on our own prompts. Returns "
            "accuracies on texts held back, in percent, loads and losses."
        ),
        concurrency_limit=1,
        concurrency_id="train-mixture",
    )
    return own
