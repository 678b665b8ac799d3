"""Tab Router robustness: routers probed by category, reworded prompts, jailbreaks and private data."""

import csv
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import MofmeError, TableError
from mofme.measure.result import Figure
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, Probe, own_probes
from mofme.ui.html import heat_table, measured_box
from mofme.ui.limits import Limits
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.uploads import download_button, file_box, new_folder, to_download
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work
from mofme.vision.archive import pack

if TYPE_CHECKING:
    from mofme.papers.router_robustness.tab_probing import Probed

MEASURED = ("llm_robustness",)

CARROT, GUARDED, RULE, COIN, STRONG = (
    "CARROT, shipped",
    "CARROT, guarded",
    "complexity rule",
    "coin flip",
    "always strong",
)
ROUTERS = (CARROT, GUARDED, RULE, COIN, STRONG)

_COLUMNS = ("prompt", "category", "difficulty")


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
            buttons = start_and_cancel("Probe", "probe")
        with gr.Column(scale=6, min_width=320):
            status = status_box(
                "Where each kind of prompt goes appears here: a router that goes by difficulty sends hard prompts to "
                "the strong model, whatever they are about."
            )
            tables = gr.HTML(padding=False, elem_id="robustness")
            archive = download_button("Download the report", "robustness-report")
    measured_box(*MEASURED)

    def run(job: Job, routers: list[str], categories: list[str], own: str | None, share: float) -> "Probed":
        if not routers:
            raise MofmeError("Choose at least one router.")
        probes = read_probes(Path(own), limits) if own else [p for p in own_probes() if p.category in categories]
        if not probes:
            raise MofmeError("Choose at least one kind of prompts, or a file of your own.")
        job.report(0, "Reading the router")
        from mofme.papers.router_robustness.tab_probing import probe

        return probe(services.prompt_router(), routers, probes, share / 100, job)

    work(
        run,
        [routers, categories, own, share],
        {
            status: summary_html,
            tables: probed_html,
            archive: lambda probed: to_download(save_report(probed)),
        },
        buttons,
        status,
        limits.training_seconds,
        Endpoint(
            "robustness",
            "Probe routers with our prompts of some categories, or with a CSV of prompt, category and difficulty. "
            "Returns a report and where the prompts go, in percent.",
            {"report": gr.File, "result": gr.JSON},
            lambda probed: (str(save_report(probed)), probed_values(probed)),
        ),
    )


def read_probes(path: Path, limits: Limits) -> list[Probe]:
    """A visitor's CSV of prompts. Raises TableError, naming the row and what is wrong with it."""
    if path.stat().st_size > limits.table_megabytes * 1e6:
        raise TableError(f"{path.name} is larger than the limit of {limits.table_megabytes:g} MB.")
    probes: list[Probe] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
                raise TableError(f"{path.name} lacks {', '.join(missing)}: its first line names the columns.")
            for number, row in enumerate(reader, start=2):
                if len(probes) == limits.probes:
                    raise TableError(f"{path.name} has more prompts than the limit of {limits.probes}.")
                try:
                    prompt, category, difficulty = ((row[name] or "").strip() for name in _COLUMNS)
                    if len(prompt) > limits.prompt_characters:
                        raise TableError(
                            f"the prompt is longer than the limit of {limits.prompt_characters:,} characters"
                        )
                    probes.append(Probe(prompt, category.lower(), difficulty.lower(), path.name))
                except TableError as error:
                    raise TableError(f"{path.name}, row {number}: {error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path.name} is no CSV in UTF-8: {error}") from error
    if not probes:
        raise TableError(f"{path.name} has no prompts.")
    return probes


def summary_html(probed: "Probed") -> str:
    """What was probed, and between which models."""
    seen = probed.assessment
    return (
        f"<p>Done: {len(seen.probes)} prompts, as they are and in {len(seen.rewordings)} rewordings. Strong: "
        f"<b>{html.escape(probed.strong)}</b>. Weak: <b>{html.escape(probed.weak)}</b>.</p>"
    )


def probed_html(probed: "Probed") -> str:
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


def probed_values(probed: "Probed") -> dict[str, Any]:
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


def save_report(probed: "Probed") -> Path:
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
