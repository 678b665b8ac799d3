"""The tab "Attention router": its parts, its endpoint, and a person's way through it."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.errors import Cancelled, ModelError
from mofme.language.small_lm import Vocabulary
from mofme.papers.attention_router import tab as attention_router
from mofme.papers.attention_router.models import Explanation, RouterOnText
from mofme.papers.attention_router.tab import (
    layer_html,
    run_html,
    run_values,
    summary_html,
    train_three,
)
from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from tests.ui.one_tab import one_tab


def toy(text: str) -> Explanation:
    """Every word is a token. Expert 1 reads all of the linear router's, each expert half of the attention router's."""
    tokens = tuple(f" {word}" for word in text.split())
    if len(tokens) < 2:
        raise ModelError("a text of at least two tokens is needed: <type>")
    count = len(tokens)
    alone_LTE = torch.tensor([1.0, 0.0]).expand(2, count, 2)
    both_LTE = torch.tensor([0.75, 0.25]).expand(2, count, 2)
    listening_LEE = torch.tensor([[[0.9, 0.1], [0.4, 0.6]], [[0.5, 0.5], [0.5, 0.5]]])
    return Explanation(
        tokens,
        {
            "linear": RouterOnText(alone_LTE, alone_LTE[:, 0], (0.0, 0.0), torch.full((count - 1,), 3.0)),
            "attention": RouterOnText(
                both_LTE, torch.full((2, 2), 0.5), (1.0, 0.5), torch.full((count - 1,), 2.0), listening_LEE
            ),
        },
    )


def cells(page: str, name: str) -> list[list[str]]:
    """The cells of the rows of this name."""
    rows = re.findall(rf"<tr><td>{re.escape(name)}</td>(.*?)</tr>", page)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_losses_and_loads_are_told() -> None:
    page = summary_html(toy("one two three"))
    assert "Surprised least: the model with the router <b>Attention</b>" in page
    # exp(3) = 20.1, exp(2) = 7.4; evenness is the mean of the layers.
    assert cells(page, "Linear") == [["3.000", "20", "0.000"]]
    assert cells(page, "Attention") == [["2.000", "7", "0.750"]]


def test_weights_and_losses_stand_beside_each_token() -> None:
    page = layer_html(toy("one <two>"), 0)
    assert cells(page, "·one") == [["", "", "100", "", "75", "25"]]  # nothing comes before it: no loss
    assert cells(page, "·&lt;two&gt;") == [["3.0", "2.0", "100", "", "75", "25"]]
    assert cells(page, "Linear") == [["100", ""]] and cells(page, "Attention") == [["50", "50"]]


def test_the_map_of_the_layer_asked_for_is_shown() -> None:
    assert cells(layer_html(toy("a b"), 0), "2") == [["40", "60"]]
    assert cells(layer_html(toy("a b"), 1), "2") == [["50", "50"]]


WORDS = "".join(f"the {number} old men and the {number % 7} young ones went to sea. " for number in range(900))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.learn([WORDS], 300)


def test_three_models_are_trained_side_by_side(vocabulary: Vocabulary) -> None:
    told: list[tuple[float, str]] = []
    run = train_three(WORDS, 3, Job(600, lambda share, words: told.append((share, words))), vocabulary)
    values = run_values(run)
    assert list(values) == ["linear", "mlp", "attention"]
    assert {len(one["losses"]) for one in values.values()} == {3}
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    page = run_html(run)
    assert len(cells(page, "MLP")) == 1 and "<svg" in page


def test_training_stops_when_asked(vocabulary: Vocabulary) -> None:
    job = Job(600)
    job.cancel()
    with pytest.raises(Cancelled):
        train_three(WORDS, 3, job, vocabulary)


@pytest.fixture(scope="module")
def address(folders: None) -> Iterator[str]:
    services = Services(Engine([]), Limits(prompt_characters=200))
    with one_tab(lambda: attention_router.build(services, toy)) as address:
        yield address


def test_programs_are_answered(address: str) -> None:
    client = Client(address, verbose=False)
    answer = client.predict("two words", api_name="/attention_router")
    assert answer["tokens"] == [" two", " words"]
    assert answer["routers"]["attention"]["nats"] == [2.0]
    for text, words in (("a" * 201, "201 characters"), ("one", "at least two tokens")):
        with pytest.raises(AppError, match=words):
            client.predict(text, api_name="/attention_router")
    client.close()


def test_a_person_looks_at_a_text_on_a_phone(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    page.locator("#attention-examples button").first.click()
    expect(page.locator("#attention-answer .choice")).to_contain_text("Surprised least")
    rows = page.locator("#attention-tokens tbody tr")
    expect(rows.filter(has_text="·old")).to_have_count(1)
    expect(page.locator("#attention-tokens table")).to_have_count(3)
    before = page.locator("#attention-tokens").inner_text()
    page.locator("#attention-layer input:not(:checked)").click()
    expect(page.locator("#attention-tokens")).not_to_have_text(before)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.fill("#attention-text textarea", "one")
    page.click("#attention-start")
    expect(page.locator("#attention-answer .problem")).to_contain_text("at least two tokens is needed: <type>")
    page.fill("#attention-text textarea", "a" * 201)
    page.click("#attention-start")
    expect(page.locator("#attention-answer .problem")).to_contain_text("201 characters")
    expect(page.locator("#attention-tokens table")).to_have_count(0)
    expect(page.get_by_text("Error", exact=True)).to_have_count(0)
    page.fill("#attention-text textarea", "two words")
    page.click("#attention-start")
    expect(page.locator("#attention-answer .choice")).to_contain_text("Surprised least")
