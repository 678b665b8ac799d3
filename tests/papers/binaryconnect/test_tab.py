"""The tab "Binary weights": digits and photos, its endpoints, and a person's way through it."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, ModelError
from mofme.papers.binaryconnect import tab as binary
from mofme.papers.binaryconnect.net import DigitNet
from mofme.papers.binaryconnect.tab import Reader, ShippedRestorer, compare_photo, photo_html, restorers_to_compare
from mofme.papers.binaryconnect.training import Plan, Run, save_digit_net
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer
from tests.ui.one_tab import one_tab
from tests.vision.tiny_models import save_two_models


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, ...]:
    """Untrained nets of both kinds."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, arm in (("digits", "deterministic"), ("digits_float", "float")):
        plan = Plan(arm, width=32)
        save_digit_net(folder / name, DigitNet(arm, 32).eval(), Run(plan), "none", {"test error, %": 90.0})
    return binary.read_nets(folder)


def test_both_nets_answer_the_one_of_bits_first(readers: tuple[Reader, ...]) -> None:
    assert [reader.binary for reader in readers] == [True, False]
    assert set(readers[0].first_weights_FD.flatten().tolist()) == {-1.0, 1.0}
    pixels = torch.rand(784, generator=torch.Generator().manual_seed(0))
    answers = binary.read_digit(readers, pixels)
    # The most excited units: largest sums of pixels times weights, with what batch normalisation adds.
    layer = readers[1].net[0]
    expected = (layer.weight @ pixels + layer.bias).relu().topk(24).indices.tolist()
    assert list(answers[1].units) == expected
    for answer in answers:
        torch.testing.assert_close(answer.scores_C, answer.reader.net(pixels[None])[0])

    page = binary.answers_html(answers, pixels) + binary.weights_html(answers)
    for tag in ("b", "i", "span", "div", "p"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>")
    assert page.count("90.00 % of MNIST's test digits wrong") == 2


def test_no_net_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="binary train"):
        binary.read_nets(tmp_path)


def test_programs_read_digits_and_restore(address: str, tmp_path: Path, photo: Path) -> None:
    pixels = np.full((60, 60), 255, np.uint8)
    pixels[10:50, 25:32] = 0
    Image.fromarray(pixels).save(tmp_path / "one.png")
    client = Client(address, verbose=False)
    answer = client.predict(handle_file(tmp_path / "one.png"), api_name="/read_digit")
    assert list(answer) == ["digits", "digits_float"]
    assert all(0 <= net["digit"] <= 9 and len(net["scores"]) == 10 for net in answer.values())
    Image.fromarray(np.full((60, 60), 255, np.uint8)).save(tmp_path / "nothing.png")
    with pytest.raises(AppError, match="Nothing is drawn"):
        client.predict(handle_file(tmp_path / "nothing.png"), api_name="/read_digit")
    with pytest.raises(AppError, match="Choose a picture"):
        client.predict(None, api_name="/read_digit")
    real, signs, report = client.predict(handle_file(photo), api_name="/restore_binary")
    for file in (real, signs):
        with Image.open(file) as image:
            assert (image.format, image.size) == ("PNG", (64, 96))
    assert [(name, side["binary"]) for name, side in report["restorers"].items()] == [
        ("tiny", False),
        ("tiny-binary", True),
    ]
    with pytest.raises(AppError, match="Choose a photo"):
        client.predict(None, api_name="/restore_binary")
    client.close()


def test_a_person_draws_a_digit_and_compares_a_photo(visit: Callable[..., Page], address: str, photo: Path) -> None:
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
    page.click("#binary-restore")
    expect(page.get_by_text("Choose a photo first")).to_be_visible()
    page.set_input_files("#binary-photo input[type=file]", photo)
    expect(page.locator("#binary-photo img").first).to_be_visible()
    page.click("#binary-restore")
    expect(page.locator("#binary-summary")).to_contain_text("levels apart")
    expect(page.locator("#binary-slider img")).to_have_count(2)
    expect(page.locator("#binary-summary tr")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_two_models(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(models: Path) -> Engine:
    return Engine(["tiny", "tiny-binary"], lambda name: Restorer.from_pretrained(str(models / name), device="cpu"))


@pytest.fixture(scope="module")
def pair(models: Path, tiny: Engine) -> tuple[ShippedRestorer, ...]:
    return restorers_to_compare(tiny.models, models)


@pytest.fixture(scope="module")
def address(
    folders: None, tiny: Engine, readers: tuple[Reader, ...], pair: tuple[ShippedRestorer, ...]
) -> Iterator[str]:
    with one_tab(lambda: binary.build(Services(tiny), lambda: readers, pair)) as address:
        yield address


def test_a_binary_net_is_compared_with_the_same_net(models: Path, pair: tuple[ShippedRestorer, ...]) -> None:
    assert [restorer.card.name for restorer in pair] == ["tiny", "tiny-binary"]
    assert [restorer.binary for restorer in pair] == [False, True]
    assert pair[1].kilobytes == (models / "tiny-binary" / "model.safetensors").stat().st_size / 1000
    assert pair[1].kilobytes < pair[0].kilobytes


def test_one_net_alone_is_not_compared(models: Path, tmp_path: Path) -> None:
    assert restorers_to_compare(["tiny-binary"], models) == ()
    assert restorers_to_compare(["tiny"], models) == ()
    shutil.copytree(models / "tiny-binary", tmp_path / "tiny-binary")
    assert restorers_to_compare(["tiny", "tiny-binary"], tmp_path) == ()


def test_both_pictures_are_what_the_nets_make(
    tiny: Engine, pair: tuple[ShippedRestorer, ...], photo: Path, folders: None
) -> None:
    done: list[float] = []
    compared = compare_photo(tiny, pair, Job(60, lambda share, words: done.append(share)), photo, 1)
    picture = read_picture(photo).rgb
    restored = [tiny.restorer(name)(picture).image for name in ("tiny", "tiny-binary")]
    for file, image in zip(compared.files, restored, strict=True):
        assert (read_picture(file).rgb - image).abs().max() < 0.6 / 255
    assert compared.apart == pytest.approx(255 * (restored[0] - restored[1]).abs().mean().item(), rel=1e-3)
    assert done == sorted(done) and done[-1] == 1
    page = photo_html(compared)
    assert "Real weights: tiny<" in page and "One-bit weights: tiny-binary<" in page
    assert "2 of its layers" in page


def test_frames_left_out_are_told(
    tiny: Engine, pair: tuple[ShippedRestorer, ...], tmp_path: Path, folders: None
) -> None:
    stills = [Image.new("RGB", (32, 24), colour) for colour in ("red", "green", "blue")]
    stills[0].save(tmp_path / "three.png", save_all=True, append_images=stills[1:])
    page = photo_html(compare_photo(tiny, pair, Job(60), tmp_path / "three.png", 1))
    assert "1 of 3 frames restored, the others are left out" in page


def test_it_can_be_stopped(tiny: Engine, pair: tuple[ShippedRestorer, ...], photo: Path, folders: None) -> None:
    job = Job(60)
    job.cancel()
    with pytest.raises(Cancelled):
        compare_photo(tiny, pair, job, photo, 1)


def test_none_shipped_is_said(folders: None, engine: Engine, photo: Path) -> None:
    none = one_tab(lambda: binary.build(Services(engine), restorers=()))
    with none as address, pytest.raises(AppError, match="train one with"):
        Client(address, verbose=False).predict(handle_file(photo), api_name="/restore_binary")
