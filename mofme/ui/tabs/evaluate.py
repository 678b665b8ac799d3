"""Tab Evaluate: pictures whose answer is known in, figures, plots and a report out; and what we measured ourselves."""

import html
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from mofme.ui.figures import gallery
from mofme.ui.html import measured_box, result_tables
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.tabs.measuring import Measuring, measure
from mofme.ui.tabs.restore import model_box
from mofme.ui.uploads import download_button, file_box, to_download
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work
from mofme.vision.label_sets import available_label_sets

# Rooms whose shipped results this tab shows, by how their names start.
MEASURED = ("ablation", "bench", "classification", "cluster", "restor", "segmentation", "service")


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            degraded = file_box(
                file_count="multiple", label="Pictures in bad weather, or one ZIP", height=150, elem_id="degraded"
            )
            clean = file_box(file_count="multiple", label="The same pictures, clean", height=150, elem_id="clean")
            gr.Markdown(
                "Pictures are matched by name. A ZIP holds `input/` and `target/`; or, to see what restoring does for "
                f"segmentation, `images/` and `labels/`. Up to {limits.batch_pictures} pictures of "
                f"{limits.megapixels:g} megapixels.",
                elem_classes="note",
            )
            buttons = start_and_cancel("Measure", "measure")
            with gr.Accordion("Options", open=False):
                model = model_box(services.engine.models)
                label_set = gr.Dropdown(
                    available_label_sets(), value="camvid", label="Label set", info="What the labels mean."
                )
        with gr.Column(scale=6, min_width=320):
            status = status_box("How much closer to the truth the restored pictures come appears here.")
            archive = download_button("Download the report", "evaluation")
            plots = gr.HTML(padding=False, elem_classes="plots")
            tables = gr.HTML(padding=False)
            worst_title = gr.Markdown("#### Worst pictures: before, after, truth", visible=False)
            worst = gallery("strips", 1, object_fit="contain", elem_id="worst")
            best_title = gr.Markdown("#### Best pictures: before, after, truth", visible=False)
            best = gallery("strips", 1, object_fit="contain", elem_id="best")
    measured_box(*MEASURED, elem_id="measured")

    def measure_uploads(
        job: Job, degraded: list[str] | None, clean: list[str] | None, model: str | None, label_set: str
    ) -> Iterator[Measuring]:
        first, second = ([Path(path) for path in paths or ()] for paths in (degraded, clean))
        yield from measure(services.engine, job, first, second, model, label_set, limits)

    work(
        measure_uploads,
        [degraded, clean, model, label_set],
        {
            status: _words,
            archive: lambda state: to_download(state.archive),
            plots: lambda state: "".join(state.plots()) if state.result else "",
            tables: lambda state: result_tables(state.result) if state.result else "",
            worst_title: lambda state: gr.Markdown(visible=state.result is not None),
            worst: lambda state: state.worst() if state.result else [],
            best_title: lambda state: gr.Markdown(visible=bool(state.result and state.best())),
            best: lambda state: state.best() if state.result else [],
        },
        buttons,
        status,
        limits.batch_seconds,
        Endpoint(
            "evaluate",
            "Measure pairs, loose or zipped, or labelled frames in a ZIP. Returns a report and the result.",
            {"report": gr.File, "result": gr.JSON},
            _for_programs,
            streams=True,
        ),
    )


def _words(state: Measuring) -> str:
    """How far it is, what came of it, and what could not be measured (HTML)."""
    words = f"{'Done' if state.result else 'Working'}: {state.done} of {state.total} pictures"
    failed = "".join(f"<li>{html.escape(name)}: {html.escape(error)}</li>" for name, error in state.errors.items())
    verdict = f"<p><b>{html.escape(state.result.verdict)}</b></p>" if state.result else ""
    problems = f"<p>Could not be measured:</p><ul class='problem'>{failed}</ul>" if failed else ""
    return f"<p>{words}</p><progress value='{state.done}' max='{state.total}'></progress>{verdict}{problems}"


def _for_programs(state: Measuring) -> tuple[str | None, dict[str, Any]]:
    result = asdict(state.result) if state.result else {}
    return str(state.archive) if state.archive else None, {"result": result, "errors": state.errors}
