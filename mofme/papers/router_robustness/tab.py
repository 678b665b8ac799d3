"""Tab Router robustness: routers probed by category, reworded prompts, jailbreaks and private data."""

import csv
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mofme.errors import MofmeError
from mofme.measure.result import Figure
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe, own_probes
from mofme.ui.html import heat_table, measured_box
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.uploads import download_button, new_folder, to_download
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work
from mofme.vision.archive import pack

if TYPE_CHECKING:
    from mofme.language.sentence_encoder import Queries
    from mofme.language.tables.table import BoolArray
    from mofme.papers.carrot.trained_router import TrainedRouter
    from mofme.papers.router_robustness.assessment import Assessment
    from mofme.papers.router_robustness.routers import TwoModelRouter

MEASURED = ("llm_robustness",)

CARROT, GUARDED, RULE, COIN, STRONG = (
    "CARROT, shipped",
    "CARROT, guarded",
    "complexity rule",
    "coin flip",
    "always strong",
)
ROUTERS = (CARROT, GUARDED, RULE, COIN, STRONG)
_BATCH = 32  # prompts


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            routers = gr.CheckboxGroup(list(ROUTERS), value=list(ROUTERS[:3]), label="Routers", elem_id="routers")
            categories = gr.CheckboxGroup(list(CATEGORIES), value=list(CATEGORIES), label="Our prompts of")
            gr.Markdown(
                "No language model is asked: only where the prompts would go is looked at.", elem_classes="note"
            )
            share = gr.Slider(
                5,
                95,
                value=50,
                step=5,
                label="Calls to the strong model, %",
                info="The routers' thresholds are set so that this share of all prompts goes to the strong model.",
            )
            buttons = start_and_cancel("Probe", "probe")
        with gr.Column(scale=6, min_width=320):
            status = status_box(
                "Where each kind of prompt goes appears here: a router that goes by difficulty sends hard prompts to "
                "the strong model, whatever they are about."
            )
            tables = gr.HTML(padding=False, elem_id="robustness")
            archive = download_button("Download the report", "robustness-report")
    measured_box(*MEASURED)

    def run(job: Job, routers: list[str], categories: list[str], share: float) -> Probed:
        if not routers:
            raise MofmeError("Choose at least one router.")
        probes = [probe for probe in own_probes() if probe.category in categories]
        if not probes:
            raise MofmeError("Choose at least one kind of prompts.")
        job.report(0, "Reading the router")
        return probe(services.prompt_router(), routers, probes, share / 100, job)

    work(
        run,
        [routers, categories, share],
        {
            status: summary_html,
            tables: probed_html,
            archive: lambda probed: to_download(save_report(probed)),
        },
        buttons,
        status,
        services.limits.training_seconds,
        Endpoint(
            "robustness",
            "Probe routers with our prompts of some categories. Returns a report and where the prompts go, in percent.",
            {"report": gr.File, "result": gr.JSON},
            lambda probed: (str(save_report(probed)), probed_values(probed)),
        ),
    )


@dataclass(frozen=True)
class Probed:
    """What probing showed, and between which two models the routers chose."""

    assessment: "Assessment"
    strong: str
    weak: str

    def to_strong(self, router: str, category: str, difficulty: str | None = None) -> Figure | None:
        """Prompts that go to the strong model, in percent; None where nothing was probed."""
        kinds = {(probe.category, level) for probe in self.assessment.probes for level in (None, probe.difficulty)}
        return self.assessment.share(router, category, difficulty) if (category, difficulty) in kinds else None

    def to_weak(self, router: str, category: str) -> Figure | None:
        share = self.to_strong(router, category)
        return share and share.map(lambda strong: 100 - strong)


def probe(router: "TrainedRouter", names: Sequence[str], probes: Sequence[Probe], share: float, job: Job) -> Probed:
    """Let the routers named, of ROUTERS, choose for all prompts as they are and reworded.

    Thresholds are set on these very prompts, so that `share` of them goes to the strong model. Raises MofmeError when
    the job is stopped, or its time is up.
    """
    from mofme.papers.carrot.baselines import ComplexityRule
    from mofme.papers.router_robustness.assessment import REWORDINGS, assess
    from mofme.papers.router_robustness.experiment import remembering
    from mofme.papers.router_robustness.routers import Always, Calibrated, CoinFlip, Guarded, between_two, threshold_for
    from mofme.papers.router_robustness.safety import find_private, stopped_by_phrases

    total, done = len(probes) * (1 + len(REWORDINGS)), 0

    def told(batch: Sequence[str]) -> "Queries":
        nonlocal done
        job.report(done / total, "Reading the prompts, as they are and reworded")
        done += len(batch)
        return router.queries(batch)

    embed = remembering(told, _BATCH)
    plain = embed([probe.prompt for probe in probes])

    def stops(queries: "Queries") -> "BoolArray":
        """What rules without a model keep off the weak one: the usual words of jailbreaks, and private data."""
        private_N = np.array([bool(find_private(prompt)) for prompt in queries.prompts])
        return stopped_by_phrases(queries.prompts) | private_N

    two = between_two(CARROT, router.estimate, router.models, plain, share)
    rule = ComplexityRule()
    make: dict[str, Callable[[], TwoModelRouter]] = {
        CARROT: lambda: two.router,
        GUARDED: lambda: Guarded(GUARDED, two.router, stops),
        RULE: lambda: Calibrated(RULE, rule.score, threshold_for(rule.score(plain), share)),
        COIN: lambda: CoinFlip(share=share),
        STRONG: lambda: Always(STRONG, True),
    }
    return Probed(assess([make[name]() for name in ROUTERS if name in names], probes, embed), two.strong, two.weak)


def summary_html(probed: Probed) -> str:
    """What was probed, and between which models."""
    seen = probed.assessment
    return (
        f"<p>Done: {len(seen.probes)} prompts, as they are and in {len(seen.rewordings)} rewordings. Strong: "
        f"<b>{html.escape(probed.strong)}</b>. Weak: <b>{html.escape(probed.weak)}</b>.</p>"
    )


def probed_html(probed: Probed) -> str:
    """Where the calls go, what rewording turns, and where jailbreaks and private data go."""
    seen = probed.assessment
    by_category = {
        category: [probed.to_strong(router, category, level) for router in seen.routers for level in DIFFICULTIES]
        for category in seen.categories
    }
    by_router = [seen.explained(router) for router in seen.routers]
    explained = {
        "the category": [category for category, _, _ in by_router],
        "the difficulty inside it": [difficulty for _, difficulty, _ in by_router],
    }
    flips = {kind: [seen.flips(router, kind) for router in seen.routers] for kind in seen.rewordings}
    flips["all"] = [seen.flips(router) for router in seen.routers]
    exposed = {
        words: [probed.to_weak(router, category) for router in seen.routers]
        for category, words in (("jailbreak", "jailbreaks"), ("privacy", "private data"))
        if category in seen.categories
    }
    plain = {router: [""] for router in seen.routers}
    return (
        "<h4>Calls to the strong model, %</h4>"
        + heat_table({router: DIFFICULTIES for router in seen.routers}, by_category)
        + "<h4>What explains the decisions, % of their variance</h4>"
        + heat_table(plain, explained)
        + "<h4>Decisions that harmless rewording turns, %</h4>"
        + heat_table(plain, flips)
        + ("<h4>What leaves for the weak model, %</h4>" + heat_table(plain, exposed) if exposed else "")
    )


def probed_values(probed: Probed) -> dict[str, Any]:
    """The same for programs, in percent with intervals."""
    seen = probed.assessment

    def plain(figure: Figure | None) -> dict[str, float | None] | None:
        return figure.plain() if figure else None

    return {
        "strong": probed.strong,
        "weak": probed.weak,
        "prompts": len(seen.probes),
        "routers": {
            router: {
                "to_strong": {
                    category: {level: plain(probed.to_strong(router, category, level)) for level in DIFFICULTIES}
                    for category in seen.categories
                },
                "explained_by_category": plain(seen.explained(router)[0]),
                "explained_by_difficulty": plain(seen.explained(router)[1]),
                "flips": {kind: plain(seen.flips(router, kind)) for kind in seen.rewordings},
                "jailbreaks_to_weak": plain(probed.to_weak(router, "jailbreak")),
                "private_to_weak": plain(probed.to_weak(router, "privacy")),
            }
            for router in seen.routers
        },
    }


def save_report(probed: Probed) -> Path:
    """A ZIP with the figures as JSON and every decision as CSV."""
    folder = new_folder()
    report = folder / "report"
    report.mkdir()
    (report / "robustness.json").write_text(json.dumps(probed_values(probed), indent=1) + "\n", encoding="utf-8")
    seen = probed.assessment
    with (report / "decisions.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["router", "prompt", "category", "difficulty", "strong", *(f"flips: {kind}" for kind in seen.rewordings)]
        )
        for number, router in enumerate(seen.routers):
            for place, probe in enumerate(seen.probes):
                decisions = [seen.strong_RN[number, place], *seen.flips_RWN[number, :, place]]
                writer.writerow(
                    [router, probe.prompt, probe.category, probe.difficulty, *(f"{share:g}" for share in decisions)]
                )
    pack(report, folder / "robustness.zip")
    return folder / "robustness.zip"
