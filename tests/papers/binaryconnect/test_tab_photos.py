"""The photos of the tab "Binary weights": which nets are compared, on what, and what is shown."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, ModelError
from mofme.papers.binaryconnect import tab as binary
from mofme.papers.binaryconnect.tab import (
    ShippedRestorer,
    compare_photo,
    photo_html,
    photo_values,
    restorers_to_compare,
)
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.vision.picture.file import read_picture
from mofme.vision.restorer import Restorer
from tests.ui.one_tab import one_tab
from tests.vision.tiny_models import save_two_models


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
def address(folders: None, tiny: Engine, pair: tuple[ShippedRestorer, ...]) -> Iterator[str]:
    with one_tab(lambda: binary.build(Services(tiny), restorers=pair)) as address:
        yield address


def test_a_binary_net_is_compared_with_the_same_net(models: Path, pair: tuple[ShippedRestorer, ...]) -> None:
    assert [restorer.card.name for restorer in pair] == ["tiny", "tiny-binary"]
    assert [restorer.title for restorer in pair] == ["Real weights", "One-bit weights"]
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
    assert photo_values(compared)["restorers"]["tiny-binary"]["binary"] is True


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


def test_programs_are_answered(address: str, photo: Path) -> None:
    client = Client(address, verbose=False)
    real, signs, report = client.predict(handle_file(photo), api_name="/restore_binary")
    for file in (real, signs):
        with Image.open(file) as image:
            assert (image.format, image.size) == ("PNG", (64, 96))
    assert list(report["restorers"]) == ["tiny", "tiny-binary"]
    with pytest.raises(AppError, match="Choose a photo"):
        client.predict(None, api_name="/restore_binary")


def test_none_shipped_is_said(folders: None, engine: Engine, visit: Callable[..., Page], photo: Path) -> None:
    with one_tab(lambda: binary.build(Services(engine), restorers=())) as address:
        page = visit(address)
        expect(page.locator("#binary-none")).to_contain_text("train one with")
        expect(page.locator("#binary-restore")).to_have_count(0)
        with pytest.raises(AppError, match="train one with"):
            Client(address, verbose=False).predict(handle_file(photo), api_name="/restore_binary")


def test_a_person_compares_a_photo(visit: Callable[..., Page], address: str, photo: Path) -> None:
    page = visit(address)
    page.click("#binary-restore")
    expect(page.get_by_text("Choose a photo first")).to_be_visible()
    page.set_input_files("#binary-photo input[type=file]", photo)
    expect(page.locator("#binary-photo img").first).to_be_visible()
    page.click("#binary-restore")
    expect(page.locator("#binary-summary")).to_contain_text("levels apart")
    expect(page.locator("#binary-slider img")).to_have_count(2)
    expect(page.locator("#binary-summary tr")).to_have_count(3)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_net_that_is_gone_is_told(pair: tuple[ShippedRestorer, ...], photo: Path, folders: None) -> None:
    with pytest.raises(ModelError, match="No model is installed"):
        compare_photo(Engine([]), pair, Job(60), photo, 1)
