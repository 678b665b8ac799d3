"""Tab Router robustness: routers probed by category, reworded prompts, jailbreaks and private data."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mofme.errors import MofmeError
from mofme.files import write_table
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

MEASURED = ("llm_robustness",)

ROUTERS = ("CARROT, shipped", "CARROT, guarded", "complexity rule", "coin flip", "always strong")
CARROT, GUARDED, RULE, COIN, STRONG = ROUTERS
_BATCH = 32  # prompts


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            routers = gr.CheckboxGroup(list(ROUTERS), value=list(ROUTERS[:3]), label="Routers", elem_id="routers")
            categories = gr.CheckboxGroup(list(CATEGORIES), value=list(CATEGORIES), label="Our prompts of")
            gr.Markdown("No language model is asked: only where prompts would go is looked at.", elem_classes="note")
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
        {status: summary_html, tables: probed_html, archive: lambda probed: to_download(save_report(probed))},
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

    def to_weak(self, router: str, category: str) -> Figure | None:
        """Prompts that go to the weak model, in percent; None where nothing was probed."""
        share = self.assessment.share(router, category)
        return share and share.map(lambda strong: 100 - strong)


def probe(router: "TrainedRouter", names: Sequence[str], probes: Sequence[Probe], share: float, job: Job) -> Probed:
    """Let the routers named, of ROUTERS, choose for all prompts as they are and reworded.

    Thresholds are set on these very prompts, so that `share` of them goes to the strong model. Raises MofmeError when
    the job is stopped, or its time is up.
    """
    from mofme.papers.carrot.baselines import ComplexityRule
    from mofme.papers.router_robustness.assessment import REWORDINGS, assess
    from mofme.papers.router_robustness.experiment import remembering
    from mofme.papers.router_robustness.routers import TwoModelRouter, always, between_two, calibrated, coin_flip
    from mofme.papers.router_robustness.safety import find_private, stopped_by_phrases

    total, done = len(probes) * (1 + len(REWORDINGS)), 0

    def told(batch: Sequence[str]) -> "Queries":
        nonlocal done
        job.report(done / total, "Reading the prompts, as they are and reworded")
        done += len(batch)
        return router.queries(batch)

    embed = remembering(told, _BATCH)
    plain = embed([probe.prompt for probe in probes])
    carrot, strong, weak = between_two(router.estimate, router.models, plain, share)

    def guarded(queries: "Queries") -> "BoolArray":
        """Rules without a model keep the usual words of jailbreaks, and private data, off the weak one."""
        private_N = np.array([bool(find_private(prompt)) for prompt in queries.prompts])
        return stopped_by_phrases(queries.prompts) | private_N | carrot.to_strong(queries)

    every = {
        CARROT: carrot,
        GUARDED: TwoModelRouter(guarded),
        RULE: calibrated(ComplexityRule().score, plain, share),
        COIN: coin_flip(share=share),
        STRONG: always(True),
    }
    chosen = {name: [one] for name, one in every.items() if name in names}
    return Probed(assess(chosen, probes, embed), strong, weak)


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
    plain, divided = ({router: parts for router in seen.routers} for parts in ([""], DIFFICULTIES))
    explained = zip(*seen.explained.values(), strict=True)
    tables = {
        "Calls to the strong model, %": {
            category: [seen.share(router, category, level) for router in seen.routers for level in DIFFICULTIES]
            for category in seen.categories
        },
        "What explains the decisions, % of their variance": dict(
            zip(("the category", "the difficulty inside it"), map(list, explained), strict=False)
        ),
        "Decisions that harmless rewording turns, %": {
            kind or "all": [seen.flips(router, kind) for router in seen.routers] for kind in (*seen.rewordings, None)
        },
        "What leaves for the weak model, %": {
            words: [probed.to_weak(router, category) for router in seen.routers]
            for category, words in (("jailbreak", "jailbreaks"), ("privacy", "private data"))
            if category in seen.categories
        },
    }
    return "".join(
        f"<h2>{title}</h2>{heat_table(plain if number else divided, lines)}"
        for number, (title, lines) in enumerate(tables.items())
        if lines
    )


def probed_values(probed: Probed) -> dict[str, Any]:
    """The same for programs, in percent with intervals."""
    seen = probed.assessment

    def of(router: str) -> dict[str, Any]:
        category, difficulty, _ = seen.explained[router]
        figures = {
            "to_strong": {
                category: {level: seen.share(router, category, level) for level in DIFFICULTIES}
                for category in seen.categories
            },
            "explained_by_category": category,
            "explained_by_difficulty": difficulty,
            "flips": {kind: seen.flips(router, kind) for kind in seen.rewordings},
            "jailbreaks_to_weak": probed.to_weak(router, "jailbreak"),
            "private_to_weak": probed.to_weak(router, "privacy"),
        }
        return {name: _plain(value) for name, value in figures.items()}

    routers = {router: of(router) for router in seen.routers}
    return {"strong": probed.strong, "weak": probed.weak, "prompts": len(seen.probes), "routers": routers}


def _plain(value: Any) -> Any:
    """Figures as values and intervals."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value.plain() if value else None


def save_report(probed: Probed) -> Path:
    """A ZIP with the figures as JSON and every decision as CSV."""
    folder, seen = new_folder(), probed.assessment
    report, packed = folder / "report", folder / "robustness.zip"
    lines: list[list[str]] = [["router", "prompt", "category", "difficulty", "strong"]]
    lines[0] += [f"flips: {kind}" for kind in seen.rewordings]
    for router, strong_N, flips_WN in zip(seen.routers, seen.strong_RN, seen.flips_RWN, strict=True):
        for probe, *shares in zip(seen.probes, strong_N, *flips_WN, strict=True):
            lines.append([router, probe.prompt, probe.category, probe.difficulty, *map("{:g}".format, shares)])
    write_table(report / "decisions.csv", lines)
    (report / "robustness.json").write_text(json.dumps(probed_values(probed), indent=1) + "\n", encoding="utf-8")
    pack(report, packed)
    return packed
