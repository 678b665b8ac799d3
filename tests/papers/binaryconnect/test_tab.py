"""The tab "Binary weights": its parts, its endpoint, and a person's way through it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect

from mofme.errors import ModelError
from mofme.papers.binaryconnect import tab as binary
from mofme.papers.binaryconnect.net import DigitNet
from mofme.papers.binaryconnect.tab import Reader, answer_values, answers_html, read_digit, read_nets, weights_html
from mofme.papers.binaryconnect.training import Plan, Run, save_digit_net
from mofme.ui.models import Engine, Services
from tests.ui.one_tab import one_tab


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, ...]:
    """Untrained nets of both kinds."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, arm in (("digits", "deterministic"), ("digits_float", "float")):
        plan = Plan(arm, width=32)
        save_digit_net(folder / name, DigitNet(arm, 32).eval(), Run(plan), "none", {"test error, %": 90.0})
    return read_nets(folder)


@pytest.fixture(scope="module")
def address(readers: tuple[Reader, ...], folders: None, engine: Engine) -> Iterator[str]:
    with one_tab(lambda: binary.build(Services(engine), lambda: readers)) as address:
        yield address


def test_both_nets_answer_the_one_of_bits_first(readers: tuple[Reader, ...]) -> None:
    assert [reader.binary for reader in readers] == [True, False]
    assert set(readers[0].first_weights_FD.flatten().tolist()) == {-1.0, 1.0}
    pixels = torch.rand(784, generator=torch.Generator().manual_seed(0))
    answers = read_digit(readers, pixels)
    # The most excited units: largest sums of pixels times weights, with what batch normalisation adds.
    layer = readers[1].net[0]
    expected = (layer.weight @ pixels + layer.bias).relu().topk(24).indices.tolist()
    assert list(answers[1].units) == expected
    for answer in answers:
        torch.testing.assert_close(answer.scores_C, answer.reader.net(pixels[None])[0])


def test_answers_are_shown_side_by_side_with_size_and_error(readers: tuple[Reader, ...]) -> None:
    answers = read_digit(readers, torch.rand(784))
    page = answers_html(answers, torch.rand(784)) + weights_html(answers)
    assert page.count("class='bar'") == 20
    for tag in ("b", "i", "span", "div", "p"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>")
    assert page.count("90.00 % of MNIST's test digits wrong") == 2
    assert page.count("<img") == 3
    assert list(answer_values(answers)) == ["digits", "digits_float"]


def test_no_net_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="binary train"):
        read_nets(tmp_path)


def test_programs_are_answered(address: str, tmp_path: Path) -> None:
    pixels = np.full((60, 60), 255, np.uint8)
    pixels[10:50, 25:32] = 0
    Image.fromarray(pixels).save(tmp_path / "one.png")
    client = Client(address, verbose=False)
    answer = client.predict(handle_file(tmp_path / "one.png"), api_name="/read_digit")
    assert all(0 <= net["digit"] <= 9 and len(net["scores"]) == 10 for net in answer.values())
    Image.fromarray(np.full((60, 60), 255, np.uint8)).save(tmp_path / "nothing.png")
    with pytest.raises(AppError, match="Nothing is drawn"):
        client.predict(handle_file(tmp_path / "nothing.png"), api_name="/read_digit")
    with pytest.raises(AppError, match="Choose a picture"):
        client.predict(None, api_name="/read_digit")


def test_a_person_draws_a_digit(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    page.click("#read")
    expect(page.get_by_text("Nothing is drawn yet")).to_be_visible()
    canvas = page.locator("#drawing canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"]
    page.mouse.move(x, y + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(x, y + 0.8 * box["height"], steps=10)
    page.mouse.up()
    page.click("#read")
    expect(page.locator("#answers .bar")).to_have_count(20)
    expect(page.locator("#weights img")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
