from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled
from mofme.papers.smose import tab as control
from mofme.papers.smose.environments import spaces
from mofme.papers.smose.policy import SparseLinearPolicy, save_policy
from mofme.papers.smose.tab import ROUTER, TREE, drive, experts_html, summary_html, timeline_svg
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from tests.ui.one_tab import one_tab


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained policy of a robot whose episodes are short."""
    folder = tmp_path_factory.mktemp("policies")
    names = spaces("Reacher")
    torch.manual_seed(0)
    policy = SparseLinearPolicy(len(names.observations), torch.tensor(names.low_A), torch.tensor(names.high_A), 4)
    save_policy(folder / "Reacher", policy, "Reacher", {"steps": 0, "seed": 0}, {})
    return folder


@pytest.fixture(scope="module")
def address(policies: Path, folders: None, engine: Engine) -> Iterator[str]:
    with one_tab(lambda: control.build(Services(engine), policies)) as address:
        yield address


@pytest.mark.parametrize("chooser", [ROUTER, TREE])
def test_an_episode_is_told_in_full(policies: Path, tmp_path: Path, chooser: str) -> None:
    driven = drive(policies / "Reacher", chooser, 3, 0, tmp_path / "a.webm", Job(60))
    assert cv2.VideoCapture(str(driven.path)).read()[0]
    used = set(driven.episode.expert_T.tolist())
    assert driven.episode.lengths == (50,)
    assert all(f"Expert {expert}" in timeline_svg(driven) for expert in used)
    assert experts_html(driven).count("<details") == len(used)
    assert ("the tree chose" in summary_html(driven)) == bool(driven.tree) == (chooser == TREE)


def test_a_cancelled_episode_stops(policies: Path, tmp_path: Path) -> None:
    job = Job(60)
    job.cancel()
    with pytest.raises(Cancelled):
        drive(policies / "Reacher", ROUTER, 3, 0, tmp_path / "a.webm", job)


def test_a_growing_tree_tells_its_rounds_and_stops_when_asked(policies: Path, tmp_path: Path) -> None:
    told = []

    def report(share: float, words: str) -> None:
        told.append(words)
        if "2 of 6" in words:
            job.cancel()

    job = Job(60, report)
    with pytest.raises(Cancelled):
        drive(policies / "Reacher", TREE, 3, 0, tmp_path / "a.webm", job)
    assert [words[-6:] for words in told[1:]] == ["1 of 6", "2 of 6"]


def test_the_api_returns_a_film_and_who_drove(address: str) -> None:
    film, result = Client(address, verbose=False).predict("Reacher", TREE, 2, 5, api_name="/drive")
    assert Path(film).suffix == ".webm" and Path(film).stat().st_size > 1000
    assert len(result["experts"]) == 50 and "expert" in result["tree"]
    with pytest.raises(AppError, match="not in the list of choices"):
        Client(address, verbose=False).predict("../secret", TREE, 2, 5, api_name="/drive")


def test_a_person_watches_a_robot(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    page.get_by_label(TREE).check()
    page.click("#drive")
    expect(page.locator("#episode video")).to_be_visible()
    expect(page.locator("#timeline svg")).to_be_visible()
    expect(page.locator("#control-experts details").first).to_be_visible()
    expect(page.locator("#tree svg")).to_contain_text("expert")
    expect(page.locator("#tree pre")).to_contain_text("expert")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
