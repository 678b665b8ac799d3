"""The tab "Router robustness": its parts, its endpoint, and a person's way through it."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled
from mofme.measure.result import Figure
from mofme.papers.router_robustness import tab
from mofme.papers.router_robustness.probes import Probe
from mofme.papers.router_robustness.tab import CARROT, GUARDED, ROUTERS, STRONG, Probed
from mofme.ui.runs import Job
from tests.ui.toy_router import toy_router
from tests.ui.visiting import open_tab

SUMS = [Probe(f"what sum is {number}", "mathematics", "hard") for number in range(4)]
RHYMES = [Probe(f"find a rhyme {number}", "translation", "simple") for number in range(3)]
PRIVATE = [Probe("find a rhyme for jo@example.org", "privacy", "simple")]


def run(names: list[str], job: Job | None = None) -> Probed:
    return tab.probe(toy_router(), names, [*SUMS, *RHYMES, *PRIVATE], 0.5, job or Job(600))


@pytest.fixture(scope="module")
def probed() -> Probed:
    return run([STRONG, GUARDED, CARROT])


def shares(figures: list[Figure | None]) -> list[float | None]:
    return [figure and figure.value for figure in figures]


def test_half_of_the_calls_go_where_they_are_needed(probed: Probed) -> None:
    share = probed.assessment.share
    assert (probed.strong, probed.weak) == ("dear <b>", "cheap")
    assert probed.assessment.routers == (CARROT, GUARDED, STRONG)
    assert shares([share(CARROT, "mathematics", "hard"), share(STRONG, "mathematics", "hard")]) == [100, 100]
    assert shares([share(CARROT, "translation"), share(STRONG, "translation")]) == [0, 100]
    assert shares([share(CARROT, "mathematics", "simple"), share(CARROT, "coding")]) == [None, None]


def test_guards_keep_private_data_off_the_weak_model(probed: Probed) -> None:
    assert shares([probed.to_weak(CARROT, "privacy"), probed.to_weak(GUARDED, "privacy")]) == [100, 0]
    assert probed.to_weak(CARROT, "jailbreak") is None


def test_what_was_probed_is_shown(probed: Probed) -> None:
    page = tab.summary_html(probed) + tab.probed_html(probed)
    assert "8 prompts" in page and "dear &lt;b&gt;" in page
    assert re.findall(r"<tr><td>([a-z ]+)</td>", page) == [
        *("translation", "mathematics", "privacy"),
        *("the category", "the difficulty inside it"),
        *("typos", "lower case", "politeness", "paraphrase", "padding", "all"),
        "private data",
    ]


def test_the_report_holds_every_decision(probed: Probed) -> None:
    with zipfile.ZipFile(tab.save_report(probed)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("decisions.csv").decode())))
        values = json.loads(archive.read("robustness.json"))
    assert len(rows) == 3 * 8
    assert {row["strong"] for row in rows if row["router"] == CARROT and row["category"] == "mathematics"} == {"1"}
    assert values == tab.probed_values(probed)
    assert values["routers"][CARROT]["to_strong"]["mathematics"]["hard"]["value"] == 100
    assert values["routers"][STRONG]["flips"]["typos"]["value"] == 0


def test_probing_stops_when_asked() -> None:
    job = Job(600)
    job.cancel()
    with pytest.raises(Cancelled):
        run([CARROT], job)


def test_robustness_answers_programs(url: str, tmp_path: Path) -> None:
    client = Client(url, verbose=False, download_files=tmp_path)
    report, answer = client.predict(list(ROUTERS), ["coding"], 50, api_name="/robustness")
    assert list(answer["routers"]) == list(ROUTERS)
    assert list(answer["routers"][STRONG]["to_strong"]) == ["coding"]
    with zipfile.ZipFile(report) as archive:
        assert set(archive.namelist()) == {"robustness.json", "decisions.csv"}
    for routers, categories, words in (([], ["coding"], "at least one router"), ([CARROT], [], "one kind of prompts")):
        with pytest.raises(AppError, match=words):
            client.predict(routers, categories, 50, api_name="/robustness")
    client.close()


def test_a_person_probes_routers(visit: Callable[..., Page], url: str, tmp_path: Path) -> None:
    page = visit(url, 1280, 900)
    open_tab(page, "Router robustness")
    page.get_by_label("always strong").check()
    page.click("#probe")
    expect(page.get_by_text("Done: 196 prompts")).to_be_visible()
    expect(page.locator("#robustness table")).to_have_count(4)
    with page.expect_download() as download:
        page.click("#robustness-report")
    download.value.save_as(tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        assert "decisions.csv" in archive.namelist()
