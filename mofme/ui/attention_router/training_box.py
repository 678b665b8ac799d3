"""The fold-out in which a visitor trains three small models side by side on a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import Jobs, plain_errors
from mofme.ui.own_text import SHIPPED_TEXT, read_own_text
from mofme.ui.services import Services
from mofme.ui.uploads import file_box

if TYPE_CHECKING:
    from mofme.language.attention_router.live import ShortRun


def training_box(services: Services) -> None:
    """Draw the fold-out, closed, and connect it."""
    jobs = Jobs()
    with gr.Accordion("Train them yourself", open=False, elem_id="own-attention"), gr.Row():
        with gr.Column(scale=4, min_width=320):
            text = file_box(label="A text of your own (TXT)", file_types=[".txt"], height=140)
            gr.Markdown(
                "At least 40,000 characters, about 20 pages. Without one, A Midsummer Night's Dream is read.",
                elem_classes="note",
            )
            steps = gr.Slider(
                20, 600, value=150, step=10, label="Steps", info="150 take about a minute for all three routers."
            )
            with gr.Row():
                start = gr.Button("Train", variant="primary", scale=3, min_width=160, elem_id="attention-train")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">How the three models learn appears here.</p>',
                padding=False,
                elem_classes="status",
                elem_id="attention-training",
                min_height=40,
            )

    def run(path: str | None, steps: float, request: gr.Request, progress: gr.Progress) -> "ShortRun":
        progress(0, desc="Reading the text")
        from mofme.ui.attention_router.live_run import train_three

        text = read_own_text(Path(path) if path else SHIPPED_TEXT)
        with jobs.running(request, services.limits.training_seconds) as job:
            return train_three(text, int(steps), job, lambda share, words: progress(share, desc=words))

    def train_and_show(
        path: str | None,
        steps: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> str:
        with plain_errors():
            trained = run(path, steps, request, progress)
            from mofme.ui.attention_router.live_run import run_html

            return run_html(trained)

    def train_api(
        path: str | None,
        steps: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[str, Any]:
        with plain_errors():
            trained = run(path, steps, request, progress)
            from mofme.ui.attention_router.live_run import run_values

            return run_values(trained)

    run_and_cancel(
        start,
        cancel,
        status,
        jobs,
        train_and_show,
        [text, steps],
        [status],
        show_progress_on=status,
        concurrency_id="train-attention",
    )
    gr.Button(visible=False).click(
        train_api,
        [text, steps],
        gr.JSON(label="trained", visible=False),
        api_name="train_attention_router",
        api_description=(
            "Train small language models with a linear, an MLP and an attention router on a text file, or without one "
            "on a play by Shakespeare. Returns losses in nats a token: of every step, and on the end held back."
        ),
        concurrency_limit=1,
        concurrency_id="train-attention",
    )
