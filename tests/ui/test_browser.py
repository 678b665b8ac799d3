"""The app as a person uses it: a real browser, a real server."""

import itertools
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from pillow_heif import register_heif_opener
from playwright.sync_api import Browser, Page, expect

from mofme.ui.window import EXPERIMENTS, TABS
from tests.ui.visiting import open_tab


@pytest.fixture
def page(visit: Callable[..., Page], url: str) -> Page:
    page = visit(url, 1280, 800)
    expect(page.locator("#examples img").first).to_be_visible()  # the last to come
    return page


def choose(page: Page, box: str, *files: Path) -> None:
    page.set_input_files(f"{box} input[type=file]", files)


def download(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as downloading:
        page.click(button)
    saved = folder / downloading.value.suggested_filename
    downloading.value.save_as(saved)
    return saved


def test_a_photo_is_restored_compared_and_downloaded_on_a_phone_whose_view_it_comes_into(
    visit: Callable[..., Page], url: str, photo: Path, tmp_path: Path
) -> None:
    page = visit(url)
    choose(page, "#photo", photo)
    expect(page.locator("#photo img")).to_be_visible()
    expect(page.locator("#comparison")).not_to_be_in_viewport(ratio=1)
    page.click("#restore")
    expect(page.locator("#comparison img")).to_have_count(2)
    expect(page.locator("#comparison img").first).to_have_js_property("naturalWidth", 64)
    expect(page.locator("#comparison")).to_be_in_viewport(ratio=0.95)
    saved = download(page, "#download", tmp_path)
    assert saved.name == "my photo-restored.jpg"
    with Image.open(saved) as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
        assert image.getexif()[ExifTags.Base.Make] == "A camera"
    page.get_by_text("What the experts did").click()
    expect(page.locator("#experts img").first).to_be_visible()
    expect(page.locator("#experts")).to_contain_text(re.compile(r"Expert \d+ · \d+ % of the picture"))
    expect(page.locator("#experts .bar")).to_have_count(4)


PASTE = """async () => {
    const canvas = document.createElement("canvas");
    const blob = await new Promise(done => canvas.toBlob(done));
    const data = new DataTransfer();
    data.items.add(new File([blob], "pasted.png", { type: "image/png" }));
    document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}"""


def test_a_picture_is_pasted_anywhere_or_an_example_chosen_whose_caption_stays_readable(page: Page) -> None:
    page.evaluate(PASTE)
    expect(page.locator("#photo img")).to_have_js_property("naturalWidth", 300)  # that of a canvas
    page.locator("#examples button").first.hover()
    page.wait_for_timeout(300)  # colours change slowly
    expect(page.locator("#examples .caption-label").first).to_have_css("opacity", "1")
    page.locator("#examples button").first.click()
    expect(page.locator("#photo img")).to_have_js_property("naturalWidth", 640)


def test_what_is_no_picture_is_told_at_once_and_a_format_that_browsers_cannot_show_is_restored(
    page: Page, tmp_path: Path
) -> None:
    register_heif_opener()
    heic, text = tmp_path / "phone.heic", tmp_path / "text.jpg"
    Image.effect_noise((64, 48), 40).convert("RGB").save(heic, format="HEIF")
    text.write_text("no picture")
    choose(page, "#photo", text)
    told = page.get_by_role("status")  # read aloud by screen readers
    expect(told.filter(has_text="text.jpg: not a picture of a known kind")).to_be_visible()
    expect(page.locator("#photo img")).to_have_count(0)
    page.click("#restore")
    expect(told.filter(has_text="Choose a photo first")).to_be_visible()
    choose(page, "#photo", heic)
    expect(page.get_by_text("text.jpg: not a picture of a known kind")).to_have_count(0)
    expect(page.locator("#photo img")).to_have_js_property("naturalWidth", 64)  # a thumbnail stands for it
    page.click("#restore")
    expect(page.locator("#comparison img").first).to_have_js_property("naturalWidth", 64)
    assert download(page, "#download", tmp_path).name == "phone-restored.heic"


def test_a_batch_shows_its_results_and_reports_bad_files_and_takes_a_folder(
    page: Page, photo: Path, broken: Path, tmp_path: Path
) -> None:
    open_tab(page, "Batch")
    choose(page, "#files", photo, broken)
    expect(page.locator("#files")).to_contain_text("broken")
    page.click("#restore-all")
    expect(page.get_by_text("Done: 1 of 2 restored, 1 failed")).to_be_visible()
    with zipfile.ZipFile(download(page, "#archive", tmp_path)) as archive:
        assert set(archive.namelist()) == {"my photo.jpg", "report.csv"}
    for folder in ("one", "two"):
        (tmp_path / "trip" / folder).mkdir(parents=True)
        shutil.copyfile(photo, tmp_path / "trip" / folder / "a.jpg")
    page.set_input_files("input[webkitdirectory]", tmp_path / "trip")
    expect(page.locator("#count")).to_contain_text("2 files chosen")
    page.click("#restore-all")
    expect(page.get_by_text("Done: 2 of 2 restored")).to_be_visible()
    for folder in ("one", "two"):
        expect(page.locator(".table.files")).to_contain_text(f"trip/{folder}/a.jpg")


def test_pairs_are_measured_shown_and_reported(visit: Callable[..., Page], url: str, tmp_path: Path) -> None:
    for folder, level in (("rainy", 120), ("clean", 100)):
        (tmp_path / folder).mkdir()
        for name in ("a.png", "b.png"):
            Image.new("RGB", (64, 48), (level,) * 3).save(tmp_path / folder / name)
    (tmp_path / "rainy" / "c.png").write_bytes(b"no picture")
    page = visit(f"{url}evaluate", 1280, 800)
    choose(page, "#degraded", *sorted((tmp_path / "rainy").iterdir()))
    expect(page.locator("#degraded")).to_contain_text("c")
    choose(page, "#clean", *sorted((tmp_path / "clean").iterdir()))
    expect(page.locator("#clean")).to_contain_text("b")
    page.click("#measure")
    expect(page.get_by_text("Done: 3 of 3 pictures")).to_be_visible()
    expect(page.get_by_text("c.png:")).to_be_visible()
    expect(page.locator(".plots:not(.result .plots) svg")).to_have_count(2)
    expect(page.locator(".plots:not(.result .plots) circle")).to_have_count(2)
    expect(page.locator("#worst img")).to_have_count(1)
    expect(page.locator("#best img")).to_have_count(1)
    with zipfile.ZipFile(download(page, "#evaluation", tmp_path)) as archive:
        assert "restoration.csv" in archive.namelist()


def test_an_address_opens_its_tab_or_experiment_and_a_reload_comes_back_to_it(
    visit: Callable[..., Page], url: str
) -> None:
    page = visit(f"{url}?tab=video")
    expect(page.locator("#video")).to_be_visible()
    page.get_by_role("tab", name="Batch").click()
    expect(page.locator("#files")).to_be_visible()
    page.reload()
    expect(page.locator("#files")).to_be_visible()
    page.goto(f"{url}?tab=LLM routing")
    expect(page).to_have_url(f"{url}llm-routing")
    page.get_by_role("link", name="Lab").click()
    page.locator("a.card", has_text="Evaluate").click()
    expect(page.locator("#measure")).to_be_visible()


def test_no_page_is_wider_than_a_phone_comes_from_elsewhere_lacks_a_title_or_skips_a_level_of_headings(
    browser: Browser, url: str
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    expect(page.locator("#examples img").first).to_be_visible()
    rows = {round(box["y"]) for tab in page.get_by_role("tab").all() if (box := tab.bounding_box())}
    assert len(rows) == 1  # two rows would take a fifth of the screen
    for name in TABS:
        open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    for experiment in EXPERIMENTS:
        page.goto(f"{url}{experiment.address}")
        expect(page.get_by_role("heading", name=experiment.name, exact=True)).to_be_visible()
        expect(page).to_have_title(f"{experiment.name} · MoFME")
        # The tables of what is shipped are wide.
        page.evaluate("for (const one of document.querySelectorAll('.result details')) one.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
        assert all(level <= before + 1 for before, level in itertools.pairwise([0, *levels]))
    assert {address for address in requests if not address.startswith((url, "data:", "blob:"))} == set()
    page.close()
