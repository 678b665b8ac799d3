"""Tab Router robustness: routers probed by category, reworded prompts, jailbreaks and private data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import MofmeError
from mofme.language.llm_routing.robustness.probes import CATEGORIES, own_probes
from mofme.ui.buttons import run_and_cancel
from mofme.ui.jobs import plain_errors
from mofme.ui.measured import measured_by_us
from mofme.ui.router_robustness.choices import ROUTERS
from mofme.ui.router_robustness.report import probed_html, probed_values, save_report, summary_html
from mofme.ui.services import Services
from mofme.ui.uploads import file_box

if TYPE_CHECKING:
    from mofme.ui.router_robustness.probing import Probed

MEASURED = ("llm_robustness",)


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    limits = services.limits
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            routers = gr.CheckboxGroup(list(ROUTERS), value=list(ROUTERS[:3]), label="Routers", elem_id="routers")
            categories = gr.CheckboxGroup(list(CATEGORIES), value=list(CATEGORIES), label="Our prompts of")
            own = file_box(label="Or prompts of your own (CSV)", file_types=[".csv"], height=140, elem_id="probes")
            gr.Markdown(
                f"A CSV holds `prompt`, `category` (one of the above) and `difficulty` (simple or hard); up to "
                f"{limits.probes} prompts. No language model is asked: only where the prompts would go is looked at.",
                elem_classes="note",
            )
            share = gr.Slider(
                5,
                95,
                value=50,
                step=5,
                label="Calls to the strong model, %",
                info="The routers' thresholds are set so that this share of all prompts goes to the strong model.",
            )
            with gr.Row():
                start = gr.Button("Probe", variant="primary", scale=3, min_width=160, elem_id="probe")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">Where each kind of prompt goes appears here: a router that goes by difficulty sends '
                "hard prompts to the strong model, whatever they are about.</p>",
                padding=False,
                elem_classes="status",
                min_height=60,
            )
            tables = gr.HTML(padding=False, elem_id="robustness")
            archive = gr.DownloadButton(
                "Download the report", variant="primary", visible=False, elem_id="robustness-report"
            )
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    inputs = [routers, categories, own, share]

    def probe_and_show(
        routers: list[str],
        categories: list[str],
        own: str | None,
        share: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> list[Any]:
        with plain_errors():
            probed = _probe(services, routers, categories, own, share, request, progress)
            archive = gr.DownloadButton(value=str(save_report(probed)), visible=True)
            return [summary_html(probed), probed_html(probed), archive]

    def robustness_api(
        routers: list[str],
        categories: list[str],
        own: str | None,
        share: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, dict[str, Any]]:
        with plain_errors():
            probed = _probe(services, routers, categories, own, share, request, progress)
            return str(save_report(probed)), probed_values(probed)

    run_and_cancel(
        start,
        cancel,
        status,
        services.probing,
        probe_and_show,
        inputs,
        [status, tables, archive],
        show_progress_on=status,
        concurrency_id="probe",
    )
    gr.Button(visible=False).click(
        robustness_api,
        inputs,
        [gr.File(label="report", visible=False), gr.JSON(label="result", visible=False)],
        api_name="robustness",
        api_description=(
            "Probe routers with our prompts of some categories, or with a CSV of prompt, category and difficulty. "
            "Returns a report and where the prompts go, in percent."
        ),
        concurrency_limit=1,
        concurrency_id="probe",
    )


def _probe(
    services: Services,
    routers: list[str],
    categories: list[str],
    own: str | None,
    share: float,
    request: gr.Request,
    progress: gr.Progress,
) -> "Probed":
    from mofme.ui.router_robustness.probing import probe, read_probes

    if not routers:
        raise MofmeError("Choose at least one router.")
    probes = read_probes(Path(own), services.limits) if own else [p for p in own_probes() if p.category in categories]
    if not probes:
        raise MofmeError("Choose at least one kind of prompts, or a file of your own.")
    progress(0, desc="Reading the router")
    with services.probing.running(request, services.limits.training_seconds) as job:
        return probe(
            services.prompt_router(),
            routers,
            probes,
            share / 100,
            job,
            lambda done, words: progress(done, desc=words),
        )
