"""What probing showed, as HTML, as values and as a ZIP to keep."""

import csv
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofme.language.llm_routing.robustness.probes import DIFFICULTIES
from mofme.measure.result import Figure
from mofme.ui.heat_table import heat_table
from mofme.ui.jobs import new_folder
from mofme.vision.archive import pack

if TYPE_CHECKING:
    from mofme.ui.router_robustness.probing import Probed


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
        "the category": [category for category, _ in by_router],
        "the difficulty inside it": [difficulty for _, difficulty in by_router],
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
        return None if figure is None else {"value": figure.value, "low": figure.low, "high": figure.high}

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
