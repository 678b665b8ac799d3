"""Tab Evaluate: pictures whose answer is known in, figures, plots and a report out; and what we measured ourselves."""

import html
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import plain_errors
from mofme.ui.measure import measure
from mofme.ui.measured import measured_by_us, result_tables
from mofme.ui.measuring import Measuring
from mofme.ui.services import Services
from mofme.ui.uploads import files_box
from mofme.vision.evaluation.label_sets import available_label_sets

# Rooms whose shipped results this tab shows, by how their names start.
MEASURED = ("ablation", "bench", "classification", "restor", "segmentation")


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits, models = services.limits, services.engine.models
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            degraded = files_box(label="Pictures in bad weather, or one ZIP", height=150, elem_id="degraded")
            clean = files_box(label="The same pictures, clean", height=150, elem_id="clean")
            gr.Markdown(
                "Pictures are matched by name. A ZIP holds `input/` and `target/`; or, to see what restoring does for "
                f"segmentation, `images/` and `labels/`. Up to {limits.batch_pictures} pictures of "
                f"{limits.megapixels:g} megapixels.",
                elem_classes="note",
            )
            with gr.Row():
                start = gr.Button("Measure", variant="primary", scale=3, min_width=160, elem_id="measure")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            with gr.Accordion("Options", open=False):
                model = gr.Dropdown(models, value=models[0] if models else None, label="Model")
                label_set = gr.Dropdown(
                    available_label_sets(), value="camvid", label="Label set", info="What the labels mean."
                )
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">How much closer to the truth the restored pictures come appears here.</p>',
                padding=False,
                elem_classes="status",
                min_height=60,
            )
            archive = gr.DownloadButton("Download the report", variant="primary", visible=False, elem_id="evaluation")
            plots = gr.HTML(padding=False, elem_classes="plots")
            tables = gr.HTML(padding=False)
            worst_title = gr.Markdown("#### Worst pictures: before, after, truth", visible=False)
            worst = _strips("worst")
            best_title = gr.Markdown("#### Best pictures: before, after, truth", visible=False)
            best = _strips("best")
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False, elem_id="measured")

    inputs = [degraded, clean, model, label_set]

    def measure_and_show(
        degraded: list[str] | None, clean: list[str] | None, model: str | None, label_set: str, request: gr.Request
    ) -> Iterator[list[Any]]:
        with plain_errors():
            for state in _measure(services, degraded, clean, model, label_set, request):
                yield _show(state)

    def evaluate_api(
        degraded: list[str] | None, clean: list[str] | None, model: str | None, label_set: str, request: gr.Request
    ) -> Iterator[tuple[str | None, dict[str, Any]]]:
        with plain_errors():
            for state in _measure(services, degraded, clean, model, label_set, request):
                result = asdict(state.result) if state.result else {}
                yield str(state.archive) if state.archive else None, {"result": result, "errors": state.errors}

    run_and_cancel(
        start,
        cancel,
        status,
        services.measuring,
        measure_and_show,
        inputs,
        [status, archive, plots, tables, worst_title, worst, best_title, best],
        show_progress_on=status,
        concurrency_id="evaluate",
    )
    gr.Button(visible=False).click(
        evaluate_api,
        inputs,
        [gr.File(label="report", visible=False), gr.JSON(label="result", visible=False)],
        api_name="evaluate",
        api_description="Measure pairs, loose or zipped, or labelled frames in a ZIP. Returns a report and the result.",
        concurrency_limit=1,
        concurrency_id="evaluate",
    )


def _strips(name: str) -> gr.Gallery:
    return gr.Gallery(
        columns=1,
        height="auto",
        object_fit="contain",
        interactive=False,
        buttons=[],
        show_label=False,
        elem_id=name,
        elem_classes=["pictures", "strips"],
    )


def _measure(
    services: Services,
    degraded: list[str] | None,
    clean: list[str] | None,
    model: str | None,
    label_set: str,
    request: gr.Request,
) -> Iterator[Measuring]:
    first, second = ([Path(path) for path in paths or ()] for paths in (degraded, clean))
    with services.measuring.running(request, services.limits.batch_seconds) as job:
        yield from measure(services.engine, job, first, second, model, label_set, services.limits)


def _show(state: Measuring) -> list[Any]:
    """Values for the widgets that show a measurement, in their order."""
    finished = state.result is not None
    words = f"{'Done' if finished else 'Working'}: {state.done} of {state.total} pictures"
    failed = "".join(f"<li>{html.escape(name)}: {html.escape(error)}</li>" for name, error in state.errors.items())
    verdict = f"<p><b>{html.escape(state.result.verdict)}</b></p>" if state.result else ""
    return [
        f'<p>{words}</p><progress value="{state.done}" max="{state.total}"></progress>{verdict}'
        + (f"<p>Could not be measured:</p><ul class='problem'>{failed}</ul>" if failed else ""),
        gr.DownloadButton(value=str(state.archive) if state.archive else None, visible=finished),
        "".join(state.plots()) if finished else "",
        result_tables(state.result) if state.result else "",
        gr.Markdown(visible=finished),
        state.worst() if finished else [],
        gr.Markdown(visible=bool(finished and state.best())),
        state.best() if finished else [],
    ]
