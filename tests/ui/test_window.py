import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import gradio as gr
import pytest
import typer
from typer.testing import CliRunner

from mofme.cli.app import open_app
from mofme.errors import MofmeError
from mofme.ui import window
from mofme.ui.models import Engine, Services
from mofme.ui.window import cards


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """What the command would have served: pictures of so many megapixels, at which host and port, for whom, ..."""
    calls: list[list[Any]] = []

    def serve(services: Any, *where: Any) -> None:
        calls.append([services.limits.megapixels, *where])

    monkeypatch.setattr(window, "serve", serve)
    monkeypatch.delenv("SPACE_ID", raising=False)
    return calls


def run(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(open_app)
    return CliRunner().invoke(app, arguments).exit_code


def test_options_reach_the_server_and_only_this_machine_is_let_in_unless_told(
    served: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run() == 0
    assert run("--host", "0.0.0.0", "--port", "8000", "--auth", "ann:a:b", "--max-megapixels", "12") == 0
    assert run("--root-path", "/clear") == 0
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/weather")
    monkeypatch.setenv("SPACE_ID", "someone/mofme")  # reached from outside its container
    assert run() == 0
    assert served == [
        [50, "127.0.0.1", 7860, None, None, None, None],
        [12, "0.0.0.0", 8000, ("ann", "a:b"), None, None, None],
        [50, "127.0.0.1", 7860, None, "/clear", None, None],
        [50, "0.0.0.0", 7860, None, "/weather", None, None],
    ]


@pytest.mark.parametrize(
    "words",
    ["--certificate a", "--key a", "--certificate a --key a", "--port 78600"]
    + [f"--auth={auth}" for auth in ("ann", "ann:", ":secret", "")],
)
def test_half_a_login_or_certificate_and_what_is_none_are_refused(
    served: list[list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("no PEM")
    assert run(*words.split()) == 2 and served == []


@pytest.fixture(scope="module")
def app(engine: Engine) -> gr.Blocks:
    return window.build(Services(engine))


def test_the_first_page_brings_the_tabs_alone_and_every_experiment_has_a_page(app: gr.Blocks) -> None:
    asked = {page: {fn.api_name for fn in app.fns.values() if fn.page == page} for page in app.config["page"]}
    assert {"restore", "batch", "video"} <= asked[""]
    assert set(asked) == {"", *(experiment.address for experiment in window.EXPERIMENTS)}
    assert "evaluate" in asked["evaluate"] and "evaluate" not in asked[""]
    assert "route" in asked["llm-routing"] and "route" not in asked[""]
    assert not app.get_api_info()["unnamed_endpoints"]


def test_every_experiment_has_a_card_that_leads_to_it_with_one_sentence() -> None:
    page = cards(window.LAB)
    for experiment in window.EXPERIMENTS:
        assert f"href='{experiment.address}'" in page
        assert experiment.use.count(".") == 1 and len(experiment.use) < 100
        ElementTree.parse(Path(window.__file__).with_name("lab") / f"{experiment.address}.svg")


def test_no_two_parts_of_the_page_have_one_name(app: gr.Blocks) -> None:
    names = [part["props"].get("elem_id") for part in app.config["components"]]
    names = [name for name in names if name]
    assert len(names) > 20
    assert sorted(names) == sorted(set(names))


def test_no_upload_box_fetches_an_address(app: gr.Blocks) -> None:
    files = (gr.File, gr.Image, gr.ImageEditor, gr.Video, gr.Audio, gr.Gallery)
    boxes = {box for function in app.fns.values() for box in function.inputs if isinstance(box, files)}
    assert len(boxes) >= 10
    # In a thread of its own: the browser of other tests keeps a loop running in this one.
    with ThreadPoolExecutor(1) as thread:
        for box in boxes:
            fetching = box.async_move_resource_to_block_cache("https://127.0.0.1/a.png")
            with pytest.raises(gr.Error, match="addresses are not fetched"):
                thread.submit(asyncio.run, fetching).result()


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_told_in_our_words() -> None:
    with socket.socket() as taken, gr.Blocks(analytics_enabled=False) as empty:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MofmeError, match="--port"):
            window._launch(empty, taken.getsockname()[1], server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    assert "--host" in window._why_closed("192.0.2.1", 0)  # TEST-NET-1 of RFC 5737: of no machine
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is taken" in window._why_closed("127.0.0.1", taken.getsockname()[1])
