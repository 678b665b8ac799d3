"""The tab "Mixture of routers": its parts, its endpoint, and a person's way through it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.core.routers import MixtureOfRouters
from mofme.errors import Cancelled, TableError
from mofme.papers.mixture_of_routers import tab as lora_mixture
from mofme.papers.mixture_of_routers.model import Explained, ExplainedLayer, explain_layer
from mofme.papers.mixture_of_routers.tab import (
    ONE,
    TWO,
    WIDE,
    Arm,
    Trained,
    layer_html,
    read_texts,
    summary_html,
    telling_layer,
    train_arms,
    trained_html,
    trained_values,
)
from mofme.papers.mixture_of_routers.training import Examples, Measured, Task
from mofme.ui.limits import Limits
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from tests.ui.one_tab import one_tab


class ToyMixture:
    """Every word is a token with random features; an untrained mixture of two routers looks at them."""

    def explain(self, text: str) -> Explained:
        tokens = ("[CLS]", *text.split(), "[SEP]")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            x_TD = torch.randn(len(tokens), 16)
            routers = [MixtureOfRouters(16, num_experts=8, num_routers=2) for _ in range(2)]
        layers = [
            explain_layer(f"layer {place}, query", router, 3 * x_TD) for place, router in enumerate(routers, start=4)
        ]
        return Explained(tokens, tuple(layers), ("coding", "<b>sums</b>"), np.array([0.3, 0.7]))


def layer(agreement: float, divergence: float, name: str = "layer 6, value") -> ExplainedLayer:
    """Two sub-routers, three tokens, two experts."""
    votes_STE = np.array([[[0.9, 0.1]] * 3, [[0.2, 0.8]] * 3])
    shares_TS = np.array([[0.8, 0.2]] * 3)
    mixed_TE = np.einsum("ts,ste->te", shares_TS, votes_STE)  # .8 * .9 + .2 * .2 = .76
    weights_TE = mixed_TE * (mixed_TE > 0.5)
    return ExplainedLayer(name, votes_STE, shares_TS, mixed_TE, weights_TE, agreement, divergence)


TWO_LAYERS = Explained(
    ("[CLS]", "<i>", "[SEP]"),
    (layer(1, 0.1, "layer 5, query"), layer(0.5, 0.3)),
    ("coding", "sums"),
    np.array([0.25, 0.75]),
)


def cells(page: str, name: str) -> list[list[str]]:
    """The cells of the rows of this name."""
    rows = re.findall(rf"<tr><td>{re.escape(name)}</td>(.*?)</tr>", page)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_the_answer_and_the_agreement_are_told() -> None:
    assert telling_layer(TWO_LAYERS) == 1
    page = summary_html(TWO_LAYERS)
    assert "reads this as <b>sums</b>" in page and "75 %" in page
    assert "<b>75 %</b> of the words both" in page  # the mean of 100 and 50 %
    assert "differ by 20 %" in page
    assert cells(page, "Layer 5, query") == [["100", "10.0", "80", "20"]]
    assert cells(page, "Layer 6, value") == [["50", "30.0", "80", "20"]]
    assert "<i>" not in page.replace("<i><b style", "")


def test_votes_shares_and_weights_stand_beside_each_word() -> None:
    page = layer_html(TWO_LAYERS, 1)
    # main router 80 and 20; votes 90, 10 and 20, 80; the second expert is not asked.
    expected = ["80", "20", "90", "10", "20", "80", "76", ""]
    assert cells(page, "(start)") == cells(page, "&lt;i&gt;") == cells(page, "(end)") == [expected]


def test_one_router_has_nobody_to_disagree_with() -> None:
    alone = ExplainedLayer("a", *(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1))), 1, 0)
    assert "nobody to disagree" in summary_html(Explained(("a",), (alone,), ("x",), np.ones(1)))


def task(count: int = 10) -> Task:
    texts = tuple(f"add {number} to {number}" if number % 2 else f"sing song {number}" for number in range(count))
    part = Examples(texts, np.arange(count) % 2)
    return Task("toy", ("songs", "sums"), part, part, part)


def test_figures_of_own_routers() -> None:
    right_N = np.arange(10) < 8
    own = Trained(task(), (Arm("One <router>", [1.0, 0.5], Measured(right_N, 0.25), 1234),), 70)
    assert own.guess == 50
    # Wilson, by hand: (8 + z^2/2 -+ z sqrt(8 * 2 / 10 + z^2/4)) / (10 + z^2) with z = 1.96: 0.490 and 0.943.
    accuracy = trained_values(own)["routers"]["One <router>"]["accuracy"]
    assert accuracy["value"] == 80
    assert (accuracy["low"], accuracy["high"]) == (pytest.approx(49.0, abs=0.05), pytest.approx(94.3, abs=0.05))
    page = trained_html(own)
    assert cells(page, "One &lt;router&gt;") == [["80 (49 to 94)", "0.25", "1,234"]]
    assert "<svg" in page


def test_routers_are_trained_side_by_side() -> None:
    told: list[tuple[float, str]] = []
    own = train_arms(task(), [ONE, TWO, WIDE], 2, Job(600, lambda share, words: told.append((share, words))))
    assert [arm.name for arm in own.arms] == [ONE, TWO, WIDE]
    assert [len(arm.losses) for arm in own.arms] == [2, 2, 2]
    assert own.arms[2].parameters >= own.arms[1].parameters > own.arms[0].parameters
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_training_stops_when_asked() -> None:
    job = Job(600)
    job.cancel()
    with pytest.raises(Cancelled):
        train_arms(task(), [ONE], 2, job)


@pytest.mark.parametrize(("content", "words"), [("text,kind\na,b\n", "lacks label"), ("", "lacks label, text")])
def test_a_table_without_texts_or_labels_or_too_large_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TableError, match=words):
        read_texts(str(path), Limits())
    path.write_text("text,label\n", encoding="utf-8")
    with pytest.raises(TableError, match="limit of 1e-06 MB"):
        read_texts(str(path), Limits(table_megabytes=1e-6))


@pytest.fixture(scope="module")
def address(folders: None) -> Iterator[str]:
    services = Services(Engine([]), Limits(prompt_characters=200))
    with one_tab(lambda: lora_mixture.build(services, ToyMixture)) as address:  # type: ignore[arg-type]
        yield address


def test_programs_are_answered(address: str) -> None:
    client = Client(address, verbose=False)
    answer = client.predict("two words", api_name="/mixture_of_routers")
    assert answer["tokens"] == ["[CLS]", "two", "words", "[SEP]"]
    assert np.sum(answer["layers"][0]["mixed"], axis=1) == pytest.approx(1, abs=1e-3)
    with pytest.raises(AppError, match="Type a text first"):
        client.predict("  ", api_name="/mixture_of_routers")
    with pytest.raises(AppError, match="at least one router"):
        client.predict(None, [], 20, api_name="/train_mixture_of_routers")
    client.close()


def test_a_person_looks_at_a_text_on_a_phone(visit: Callable[..., Page], address: str) -> None:
    page = visit(address)
    page.locator("#mixture-examples button").first.click()
    expect(page.locator("#mixture-answer .choice")).to_contain_text("<b>sums</b>")
    rows = page.locator("#mixture-words tbody tr")
    expect(rows.first).to_contain_text("(start)")
    before = rows.nth(1).inner_text()
    page.locator("#mixture-layer input:not(:checked)").click()
    expect(rows.nth(1)).not_to_have_text(before)
    page.get_by_text("Train one yourself").click()
    expect(page.locator("#mixture-train")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
