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
def served(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `main` would have served."""
    calls: list[dict[str, Any]] = []

    def serve(services: Any, address: window.Address, auth: Any) -> None:
        calls.append({"megapixels": services.limits.megapixels, **vars(address), "auth": auth})

    monkeypatch.setattr(window, "serve", serve)
    monkeypatch.delenv("SPACE_ID", raising=False)
    return calls


def run(*arguments: str) -> int:
    app = typer.Typer()
    app.command()(open_app)
    return CliRunner().invoke(app, arguments).exit_code


def test_only_this_machine_is_let_in_unless_told(served: list[dict[str, Any]]) -> None:
    assert run() == 0
    assert served == [{"megapixels": 50, **vars(window.Address()), "auth": None}]
    assert window.Address() == window.Address("127.0.0.1", 7860, root_path=None, certificate=None, key=None)


def test_options_reach_the_server(served: list[dict[str, Any]]) -> None:
    assert run("--host", "0.0.0.0", "--port", "8000", "--auth", "ann:a:b", "--max-megapixels", "12") == 0
    assert served == [{"megapixels": 12, **vars(window.Address("0.0.0.0", 8000)), "auth": ("ann", "a:b")}]


def test_a_sub_path_is_told_by_an_option_or_by_its_variable(
    served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--root-path", "/clear") == 0
    monkeypatch.setenv("GRADIO_ROOT_PATH", "/weather")
    assert run() == 0
    assert [one["root_path"] for one in served] == ["/clear", "/weather"]


@pytest.mark.parametrize("half", ["--certificate", "--key"])
def test_a_certificate_without_its_key_is_refused(served: list[dict[str, Any]], tmp_path: Path, half: str) -> None:
    (tmp_path / "file.pem").write_text("")
    assert run(half, str(tmp_path / "file.pem")) == 2
    assert served == []


@pytest.mark.parametrize("auth", ["ann", "ann:", ":secret", ""])
def test_half_a_login_is_refused(served: list[dict[str, Any]], auth: str) -> None:
    assert run("--auth", auth) == 2
    assert served == []


def test_a_space_is_reachable_from_outside_its_container(
    served: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/mofme")
    assert run() == 0
    assert served[0]["host"] == "0.0.0.0"


@pytest.fixture(scope="module")
def app(engine: Engine) -> gr.Blocks:
    return window.build(Services(engine))


def test_the_first_page_brings_the_tabs_alone_and_every_experiment_has_a_page(app: gr.Blocks) -> None:
    asked = {page: {fn.api_name for fn in app.fns.values() if fn.page == page} for page in app.config["page"]}
    assert {"restore", "batch", "video"} <= asked[""]
    assert set(asked) == {"", *(experiment.address for experiment in window.EXPERIMENTS)}
    assert "evaluate" in asked["evaluate"] and "evaluate" not in asked[""]
    assert "route" in asked["llm-routing"] and "route" not in asked[""]


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


def test_what_is_no_certificate_and_no_port_is_told_before_anything_starts(
    served: list[dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("a.pem", "b.pem"):
        (tmp_path / name).write_text("no PEM")
    assert run("--certificate", str(tmp_path / "a.pem"), "--key", str(tmp_path / "b.pem")) == 2
    assert run("--port", "78600") == 2 and served == []


def test_a_port_that_is_taken_is_told_in_our_words() -> None:
    with socket.socket() as taken, gr.Blocks(analytics_enabled=False) as empty:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MofmeError, match="--port"):
            window._launch(empty, taken.getsockname()[1], server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)


def test_an_address_of_another_machine_is_told() -> None:
    assert "--host" in window._why_closed("192.0.2.1", 0)  # TEST-NET-1 of RFC 5737: of no machine
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "is taken" in window._why_closed("127.0.0.1", taken.getsockname()[1])
