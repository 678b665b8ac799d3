"""The tab "LLM routing": its parts, its endpoint, and a person's way through it."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, MofmeError, TableError
from mofme.papers.carrot import tab_own
from mofme.papers.carrot.tab import BUDGET, QUALITY, WEIGHT, answer_html, dollars, route_by
from mofme.papers.carrot.tab_own import own_html, read_own, train_own
from mofme.papers.carrot.trained_router import TrainedRouter
from mofme.ui.limits import Limits
from mofme.ui.runs import Job
from tests.language.tables.plain_table import save_plain
from tests.ui.toy_router import CHEAP, DEAR, WordEncoder, toy_router, toy_table
from tests.ui.visiting import open_tab

SUM, RHYME = "what sum is 7", "find a rhyme 8"


@pytest.fixture(scope="module")
def router() -> TrainedRouter:
    return toy_router()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """The toy table with a blank quality in its third row and its fourth twice."""
    path = tmp_path / "my table.csv"
    save_plain(toy_table(), path)
    rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    rows[3][2] = ""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*rows, rows[4]])
    return path


@pytest.mark.parametrize(
    ("dial", "prompt", "model"),
    [
        ((WEIGHT, 0, 0, 0), SUM, DEAR),
        ((WEIGHT, 1, 9, 99), SUM, CHEAP),
        ((WEIGHT, 0.7, 0, 0), RHYME, CHEAP),  # .343 of cost: .657 * .1 of quality is not worth .343 * .9
        ((BUDGET, 0, 0.5, 99), SUM, CHEAP),  # dollars per 1,000: .1 and 1
        ((BUDGET, 1, 2, 0), SUM, DEAR),
        ((QUALITY, 0, 0, 70), RHYME, CHEAP),
        ((QUALITY, 0, 0, 70), SUM, DEAR),
    ],
)
def test_only_the_widget_that_is_shown_counts(
    router: TrainedRouter, dial: tuple[str, float, float, float], prompt: str, model: str
) -> None:
    assert route_by(router, prompt, *dial).model == model


def test_an_answer_names_the_choice_the_others_and_what_is_near(router: TrainedRouter) -> None:
    page = answer_html(router.route(RHYME, quality=0.7), "It knows <i>.")
    assert "Ask <b>cheap</b>" in page
    assert "Expected quality 80 %, $0.10 per 1,000 prompts" in page
    assert "The best, dear &lt;b&gt;, is expected to be 10 points better, for $1.00" in page
    assert re.findall(r"<tr class=chosen><td>(.*?)</td>", page) == ["cheap"]
    assert "find a rhyme" in page and "<td>rhymes</td>" in page and "<td>all</td>" in page
    assert "dear <b>" not in page and "<i>." not in page
    assert "do not trust" not in page
    assert "do not trust" in answer_html(router.route("zebra quagga okapi"), "")
    assert "No model is expected" not in page
    assert "No model is expected to cost as little: the" in answer_html(router.route(SUM, budget=1e-9), "")
    assert "No model is expected to be as good: the best" in answer_html(router.route(SUM, quality=1), "")


@pytest.mark.parametrize(("cost", "words"), [(0.0025, "$2.50"), (1.234, "$1,234.00"), (3e-7, "$0.0003"), (0, "$0")])
def test_dollars_can_be_read(cost: float, words: str) -> None:
    assert dollars(cost) == words


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(table_prompts=10), "limit of 10"),
        (Limits(table_models=1), "limit of 1"),
        (Limits(table_megabytes=0.001), r"0\.001 MB"),
    ],
)
def test_limits_of_tables_are_told(table: Path, limits: Limits, words: str) -> None:
    with pytest.raises(TableError, match=words):
        read_own(table, limits)


@pytest.mark.parametrize(
    ("rows", "megabytes"), [([f"{'x' * 1000}{row}" for row in range(2000)], 0.1), (["x" * 1000] * 20_000, 1)]
)
def test_what_parquet_unpacks_to_counts_and_what_repeats_each_time(
    tmp_path: Path, rows: list[str], megabytes: float
) -> None:
    path = tmp_path / "packed.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": rows}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(TableError, match="larger than the limit"):
        read_own(path, Limits(table_megabytes=megabytes))
    with pytest.raises(TableError, match="000 rows"):
        read_own(path, Limits(table_prompts=10))


def test_a_table_that_keeps_one_model_tells_why(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("Prompt\tQuality:a\tCost:a\tQuality:b\tCost:b\np\t0,5\t0\t50 of 60\t0\n", encoding="utf-16")
    with pytest.raises(TableError, match="one model leaves nothing to choose; dropped the model b with more than 5%"):
        read_own(path, Limits())


def test_a_router_is_trained_compared_and_asked(monkeypatch: pytest.MonkeyPatch, table: Path) -> None:
    monkeypatch.setattr(tab_own, "SentenceEncoder", WordEncoder)
    shares: list[float] = []
    own = train_own(read_own(table, Limits()), "knn", Job(600, lambda share, words: shares.append(share)))
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert own.router.route(SUM, quality=0.7).model == DEAR
    assert own.router.route(RHYME, quality=0.7).model == CHEAP
    assert own.router.route(SUM).neighbours[0].prompt.startswith("what sum is")
    page = own_html(own)
    assert "59 prompts, 2 models: routing can" in page and "costs that are blank or no numbers" in page
    for router in ("carrot", "hull", "best single", "task table"):
        assert f"<td>{router}</td>" in page


def test_training_stops_when_asked_and_refuses_what_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tab_own, "SentenceEncoder", WordEncoder)
    job = Job(600, lambda share, words: job.cancel() if share > 0.5 else None)
    with pytest.raises(Cancelled):
        train_own(toy_table(), "knn", job)
    with pytest.raises(TableError, match="too few"):
        train_own(toy_table(20), "knn", Job(600))
    with pytest.raises(MofmeError, match="telepathy"):
        train_own(toy_table(), "telepathy", Job(600))


def test_route_answers_programs_and_says_what_cannot_be(url: str) -> None:
    client = Client(url, verbose=False)
    answer = client.predict(RHYME, way=QUALITY, least=70, api_name="/route")
    assert answer["model"] == CHEAP
    assert answer["models"][DEAR]["quality"] == pytest.approx(0.9, abs=0.01)
    assert answer["models"][CHEAP]["cost"] == pytest.approx(1e-4, rel=0.01)
    assert {near["task"] for near in answer["neighbours"]} == {"rhymes"}
    for prompt, words in ((" ", "Type a prompt"), ("x" * 501, "limit of 500")):
        with pytest.raises(AppError, match=words):
            client.predict(prompt, api_name="/route")
    for beyond in ({"way": "by magic"}, {"weight": 7}, {"least": -1}, {"budget": -1}):
        with pytest.raises(AppError):
            client.predict(SUM, **beyond, api_name="/route")
    client.close()


def test_a_person_routes_a_prompt_and_trains_on_a_table(visit: Callable[..., Page], url: str, table: Path) -> None:
    page = visit(url, 1280, 900)
    open_tab(page, "LLM routing")
    page.locator("#prompts button").first.click()
    expect(page.locator("#answer .choice")).to_contain_text("Ask")
    expect(page.locator("#answer svg circle")).to_have_count(3)
    expect(page.locator("#answer")).to_contain_text("The shipped router has learnt from 60 prompts of 2 tasks")
    page.locator("#prompt textarea").fill(SUM)
    page.get_by_label("Least quality").first.check()
    expect(page.locator("#answer .choice")).to_contain_text(DEAR)
    page.get_by_text("Load your own table").click()
    page.set_input_files("#table input[type=file]", table)
    page.click("#train")
    expect(page.locator("#trained table").first).to_be_visible()
    expect(page.locator("#trained")).to_contain_text("59 prompts")
    expect(page.locator("#answer")).to_contain_text("Your router has learnt from 59 prompts")
    page.click("#forget")
    expect(page.locator("#answer")).to_contain_text("The shipped router")
