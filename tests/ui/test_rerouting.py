"""The tab "Re-routing": its parts, its endpoint, and a person's way through it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Browser, expect

from mofme.core.model_card import checksum
from mofme.core.rerouting import layer_sizes
from mofme.errors import Cancelled, ModelError
from mofme.ui.jobs import Engine, Job
from mofme.ui.limits import Limits
from mofme.ui.rerouting.answer import neighbours_html, rerouted_values, routing_html, summary_html
from mofme.ui.rerouting.rerouted_photo import CHOSEN, ReroutedPhoto, reroute_photo
from mofme.ui.services import Services
from mofme.ui.tabs import rerouting
from mofme.vision.models import build_net
from mofme.vision.rerouting import References
from mofme.vision.restorer import Restorer
from tests.ui.one_tab import one_tab

COUNT = 6


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(["small"], lambda name: Restorer(build_net(name), name))


@pytest.fixture(scope="module")
def references(engine: Engine) -> References:
    """Made-up ones, for the weights that this engine happened to draw: all of them ask for more of the first expert."""
    net = engine.restorer("small").net
    sizes = list(layer_sizes(net).values())
    step_R = torch.cat([torch.tensor([0.2, *[0.0] * (size - 1)]) for size in sizes])
    random = torch.Generator().manual_seed(0)
    return References(
        model="small",
        model_sha256=checksum(net.state_dict()),
        embedding_ND=torch.randn(COUNT, 2 * net.to_eighth.out_channels, generator=random),
        routing_NR=torch.rand(COUNT, sum(sizes), generator=random),
        step_NR=step_R.expand(COUNT, -1),
        kind_N=torch.arange(COUNT) % 5,
        gain_N=torch.full((COUNT,), 1.5),
    )


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "my <photo>.png"
    Image.effect_noise((96, 64), 60).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def done(folders: None, engine: Engine, references: References, upload: Path) -> ReroutedPhoto:
    return reroute_photo(engine, references, Job(600), upload, "stored steps", 1, lambda share: None)


def test_files_of_equal_size_are_made(done: ReroutedPhoto) -> None:
    for path in (done.photo, done.plain, done.download, done.difference):
        with Image.open(path) as image:
            assert image.size == (96, 64)
    assert done.download.name == "my <photo>-rerouted.png"


def test_the_routing_moves_as_the_neighbours_ask_and_what_it_did_is_told(done: ReroutedPhoto) -> None:
    values = rerouted_values(done)
    for layer, before_E in values["before"].items():
        moved = [after - before for after, before in zip(values["after"][layer], before_E, strict=True)]
        assert moved == pytest.approx([0.2, *[0] * (len(moved) - 1)], abs=1e-4)
    assert sum(near["weight"] for near in values["neighbours"]) == pytest.approx(1)
    assert len(values["neighbours"]) == 5
    page = summary_html(done)
    assert f"moved by <b>{100 * values['moved']:.1f} %</b>" in page
    assert "By stored steps" in page
    near = neighbours_html(done.rerouted)
    assert near.count("+1.5&nbsp;dB") == 5 and near.count("<tr>") == 6 and "5 reference photos" in near
    # One layer a row; every change is that of the first expert.
    rows = re.findall(r"<tr><td>(\d [a-z ]+)</td>(.*?)</tr>", routing_html(done.rerouted))
    assert len(rows) == len(values["before"])
    assert all("+20.0" in row for _, row in rows)


def test_the_net_is_left_as_it_was(done: ReroutedPhoto, engine: Engine, references: References) -> None:
    references.check(engine.restorer("small").net)  # raises for other weights
    picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    twice = [engine.restorer("small")(picture).image for _ in range(2)]
    assert torch.equal(*twice)


def test_an_unknown_method_or_model_is_refused(engine: Engine, references: References, upload: Path) -> None:
    with pytest.raises(ModelError, match="'magic': choose stored steps"):
        reroute_photo(engine, references, Job(600), upload, "magic", 1, lambda share: None)
    with pytest.raises(ModelError, match="No model is installed"):
        reroute_photo(Engine([]), references, Job(600), upload, CHOSEN, 1, lambda share: None)
    with pytest.raises(ModelError, match="pictures"):  # the set has none to descend on
        reroute_photo(engine, references, Job(600), upload, "gradient descent", 1, lambda share: None)


def test_work_stops_when_asked(engine: Engine, references: References, upload: Path) -> None:
    job = Job(600)
    job.cancel()
    with pytest.raises(Cancelled):
        reroute_photo(engine, references, job, upload, CHOSEN, 1, lambda share: None)


@pytest.fixture(scope="module")
def address(folders: None, engine: Engine, references: References) -> Iterator[str]:
    services = Services(engine, Limits(megapixels=0.5))
    with one_tab(lambda: rerouting.build(services, lambda: references)) as address:
        yield address


def test_programs_are_answered(address: str, upload: Path, tmp_path: Path) -> None:
    client = Client(address, verbose=False, download_files=tmp_path)
    file, report = client.predict(handle_file(upload), CHOSEN, api_name="/reroute")
    assert report["method"] == "stored steps" and report["moved"] > 0
    with Image.open(file) as image:
        assert (image.format, image.size) == ("PNG", (96, 64))
    with pytest.raises(AppError, match="Choose a photo first"):
        client.predict(None, CHOSEN, api_name="/reroute")
    client.close()


def test_a_person_reroutes_an_example_by_one_click_on_a_phone(browser: Browser, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto(address)
    page.locator("#rerouting-examples button").first.click()
    expect(page.locator("#rerouting-summary .choice")).to_contain_text("The routing moved by")
    expect(page.locator("#rerouting-slider img")).to_have_count(2)
    expect(page.locator("#rerouting-neighbours tr")).to_have_count(6)
    expect(page.locator("#rerouting-routing tbody tr")).to_have_count(8)
    first = page.locator("#rerouting-slider img").first
    before = first.get_attribute("src")
    page.get_by_label("The photo itself").click()
    expect(first).not_to_have_attribute("src", before or "")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
