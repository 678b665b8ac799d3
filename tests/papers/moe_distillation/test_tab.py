"""The tab "Distillation": its parts, its endpoint, and a person's way through it, all with a tiny untrained pair."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled
from mofme.language.pretrained import CausalLM, SmallCausalLM
from mofme.language.small_lm import Shape, SmallLM, Vocabulary
from mofme.papers.moe_distillation import METHODS, quality
from mofme.papers.moe_distillation import tab as moe_distillation
from mofme.papers.moe_distillation.distillation import Plan
from mofme.papers.moe_distillation.tab import (
    Run,
    distil_live,
    finished_html,
    run_html,
    status_html,
    title_of,
)
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from tests.ui.one_tab import one_tab

TEXT = "The moon, methinks, looks with a watery eye.\n" * 50


def tiny_pair() -> tuple[CausalLM, CausalLM]:
    """Tokens are bytes; the teacher has two layers of four experts, of which a token visits one."""
    vocabulary = Vocabulary.learn([TEXT], 256)
    torch.manual_seed(0)
    teacher = SmallLM(Shape(256, dim=16, layers=2, heads=2, hidden=16, router="linear", experts=4, top_k=1))
    student = SmallLM(Shape(256, dim=16, layers=1, heads=2, hidden=16, router="dense"))
    return SmallCausalLM(teacher, vocabulary), SmallCausalLM(student, vocabulary)


def run(plan: Plan, text: str = TEXT, job: Job | None = None) -> list[Run]:
    return list(distil_live(*tiny_pair(), text, "The text", plan, job or Job(600)))


@pytest.fixture(scope="module", autouse=True)
def short_responses() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "RESPONSE", 8)  # tokens that are written after a prompt
        yield


@pytest.fixture(scope="module")
def runs(short_responses: None) -> list[Run]:
    return run(Plan("ka", steps=4, batch=4, samplings=1))


def test_the_last_run_tells_all(runs: list[Run]) -> None:
    last = runs[-1]
    assert len(last.losses) == 4
    assert [step for step, _ in last.held_out_kl] == [0, 1, 2, 3, 4]
    # The one expert chosen is the best of four: its weight is at least a quarter.
    assert len(last.mass_L) == 2 and all(0 < share <= 0.75 for share in last.mass_L)
    assert last.quality is not None and last.quality.kl == pytest.approx(last.held_out_kl[-1][1], rel=0.2)
    assert all(one.quality is None for one in runs[:-1])


def test_nothing_goes_on_when_nobody_watches() -> None:
    job = Job(600)
    following = distil_live(*tiny_pair(), TEXT, "The text", Plan("gkd", steps=10_000, batch=4, samplings=1), job)
    next(following)
    next(following)
    following.close()  # returns only once the work has ended
    with pytest.raises(Cancelled):
        job.check()


def test_a_run_is_shown_while_it_goes_and_when_it_is_done(runs: list[Run]) -> None:
    assert "<progress max='4' value='0'>" in status_html(runs[0])
    assert "Done: 4 steps" in status_html(runs[-1])
    page = run_html(runs[-1:])
    assert page.count("<svg") == 2
    assert page.count("class='bar'") == 2
    assert "KA, 2 x 5 %, 4 steps, seed 0" in page


def test_the_line_of_a_run_is_not_hidden_by_an_earlier_one_of_its_name(runs: list[Run]) -> None:
    earlier = replace(runs[-1], held_out_kl=((0, 9.0), (4, 9.0)))
    assert run_html([earlier, runs[-1]]).partition("</svg>")[0] == run_html(runs[-1:]).partition("</svg>")[0]


def test_finished_runs_stand_below_the_student_before(runs: list[Run]) -> None:
    page = finished_html([runs[-1], runs[-1]])
    assert re.findall(r"<tr><td>([^<]+)</td>", page) == ["Student before", *["KA, 2 x 5 %, 4 steps, seed 0"] * 2]
    assert finished_html([]) == ""


def test_only_ka_is_told_apart_by_its_draws(runs: list[Run]) -> None:
    assert title_of(Run(Plan("gkd", steps=7, seed=3), (), 0.0, runs[0].before)) == "GKD, 7 steps, seed 3"


@pytest.fixture(scope="module")
def address(folders: None) -> Iterator[str]:
    """Address of an app with this tab alone."""
    services = Services(Engine([]), distillation_pair=tiny_pair)
    with one_tab(lambda: moe_distillation.build(services)) as address:
        yield address


def test_programs_distil_with_a_text_of_their_own(address: str, tmp_path: Path) -> None:
    path = tmp_path / "moon.txt"
    path.write_text(TEXT, encoding="utf-8")
    client = Client(address, verbose=False)
    answer = client.predict("sar", 10, 1, 2, 5, handle_file(path), api_name="/distil")
    assert (answer["method"], answer["steps"], answer["seed"]) == ("sar", 10, 1)
    assert len(answer["non_activated_mass"]) == 2
    with pytest.raises(AppError, match="not in the list of choices"):
        client.predict("magic", 10, 1, 2, 5, api_name="/distil")
    path.write_text("too short", encoding="utf-8")
    with pytest.raises(AppError, match=r"moon\.txt has .* tokens"):
        client.predict("sar", 10, 1, 2, 5, handle_file(path), api_name="/distil")
    client.close()


def test_a_person_distils_twice_and_compares(visit: Callable[..., Page], address: str, tmp_path: Path) -> None:
    page = visit(address)
    page.locator("#steps input[type=number]").fill("10")
    for method, name in (("all", "All experts"), ("gkd", "GKD")):
        page.locator(f"#method input[value='{method}']").check()
        expect(page.locator("#explained")).to_contain_text(METHODS[method][:20])
        page.click("#distil")
        expect(page.locator("#distilled").get_by_text(f"{name}, 10 steps, seed 0")).to_be_visible()
        expect(page.locator("#distil")).to_be_enabled()
    expect(page.locator("#distilled tr")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#steps input[type=number]").fill("500")
    page.click("#distil")
    expect(page.locator("#distillation progress")).to_be_visible()
    page.click("#distil-cancel")
    expect(page.locator("#distillation").get_by_text("Stopped.")).to_be_visible()
