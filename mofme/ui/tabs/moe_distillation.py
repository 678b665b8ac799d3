"""Tab Distillation: a mixture of experts teaches a smaller model on the spot, by a method of the visitor's choice."""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError
from mofme.language.moe_distillation.methods import METHODS
from mofme.ui.buttons import AT_ONCE, run_and_cancel
from mofme.ui.jobs import KEEP_SECONDS, plain_errors, without_folders
from mofme.ui.measured import measured_by_us
from mofme.ui.moe_distillation.choices import CHOICES, FIRST
from mofme.ui.moe_distillation.report import finished_html, run_html, run_values, status_html
from mofme.ui.own_text import SHIPPED_TEXT, read_own_text
from mofme.ui.services import Services
from mofme.ui.uploads import file_box

if TYPE_CHECKING:
    from mofme.ui.moe_distillation.running import Run

MEASURED = ("moe_distillation",)
_SAMPLINGS = 2
_COMPARED = 6  # lines that can still be told apart
_INTRODUCTION = (
    "A teacher, a small language model with eight experts in each layer, of which a word uses two, passes on what it "
    "knows to a student a fraction of its size. The question of the paper: do the experts that a word does not use "
    "know something worth teaching, too?"
)


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    finished = gr.State([], time_to_live=KEEP_SECONDS)
    gr.Markdown(_INTRODUCTION, elem_classes="note")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            method = gr.Radio(CHOICES, value=FIRST, label="Method", elem_id="method")
            explained = gr.Markdown(METHODS[FIRST], elem_classes="note", elem_id="explained")
            steps = gr.Slider(
                10, 500, value=100, step=10, label="Steps", info="100 take about a minute on a laptop.", elem_id="steps"
            )
            seed = gr.Slider(0, 1000, value=0, step=1, label="Seed", info="Which prompts are met, and in which order.")
            with gr.Accordion("More options", open=False):
                draws = gr.Slider(
                    1, 8, value=2, step=1, label="KA: teachers a step", info="Each draws its experts anew."
                )
                chance = gr.Slider(
                    0,
                    100,
                    value=5,
                    step=1,
                    label="KA: experts by chance, %",
                    info="How often a word's experts are drawn instead of chosen. The paper's best is 5.",
                )
                own = file_box(label="Your own text (.txt)", file_types=[".txt"], height=120, elem_id="distil-text")
                gr.Markdown(
                    "Without one, A Midsummer Night's Dream is taken. The last tenth is held back to measure on.",
                    elem_classes="note",
                )
            with gr.Row():
                start = gr.Button("Distil", variant="primary", scale=3, min_width=160, elem_id="distil")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id="distil-cancel")
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">How the student comes closer to its teacher appears here. Distil by several methods, '
                "and they are compared.</p>",
                padding=False,
                elem_classes="status",
                elem_id="distillation",
                min_height=60,
            )
            curves = gr.HTML(padding=False, elem_id="curves")
    table = gr.HTML(padding=False, elem_id="distilled")
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    inputs = [method, steps, seed, draws, chance, own]

    def distil_and_show(
        request: gr.Request,
        finished: list[Any],
        *inputs: Any,
    ) -> Iterator[list[Any]]:
        with plain_errors():
            try:
                for run in _distil(services, request, *inputs):
                    before, shown = finished[-_COMPARED + 1 :], gr.skip()
                    if run.quality is not None:
                        finished = [*finished, run][-_COMPARED:]
                        shown = finished_html(finished)
                    yield [status_html(run), run_html(run, before), shown, finished]
            except ModelError as error:
                words = f"<p class='problem'>{html.escape(without_folders(str(error)))}</p>"
                yield [words, gr.skip(), gr.skip(), gr.skip()]

    def distil_api(
        method: str, steps: int, seed: int, draws: int, chance: float, own: str | None, request: gr.Request
    ) -> dict[str, Any]:
        with plain_errors():
            *_, run = _distil(services, request, method, steps, seed, draws, chance, own)
            return run_values(run)

    method.change(lambda method: METHODS[method], method, explained, **AT_ONCE)
    run_and_cancel(
        start,
        cancel,
        status,
        services.distilling,
        distil_and_show,
        [finished, *inputs],
        [status, curves, table, finished],
        show_progress_on=status,
        concurrency_id="distil",
    )
    gr.Button(visible=False).click(
        distil_api,
        inputs,
        gr.JSON(label="result", visible=False),
        api_name="distil",
        api_description=(
            f"Distil the shipped mixture of experts into the shipped student. method: {', '.join(METHODS)}. `draws` "
            "and `chance` (in percent) are for ka alone. Returns losses and how close the student has come."
        ),
        concurrency_limit=1,
        concurrency_id="distil",
    )


def _distil(
    services: Services,
    request: gr.Request,
    method: Any,
    steps: int,
    seed: int,
    draws: int,
    chance: float,
    own: str | None,
) -> Iterator["Run"]:
    from mofme.language.moe_distillation.distillation import Plan
    from mofme.ui.moe_distillation.running import distil_live

    plan = Plan(method, int(steps), int(seed), draws=int(draws), chance=chance / 100, samplings=_SAMPLINGS)
    text = read_own_text(Path(own) if own else SHIPPED_TEXT)
    teacher, student = services.distillation_pair()
    with services.distilling.running(request, services.limits.training_seconds) as job:
        yield from distil_live(teacher, student, text, plan, job)
