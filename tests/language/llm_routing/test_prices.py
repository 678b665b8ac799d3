import json
from pathlib import Path

import numpy as np
import pytest

from mofme.errors import TableError
from mofme.language.llm_routing.prices import Price, Prices


def test_list_prices_say_where_and_when_they_are_from() -> None:
    prices = Prices.load()
    assert "dollars per million tokens" in prices.source.lower() and prices.as_of
    assert prices.models["gpt-4-1106-preview"] == Price(10, 30)


def test_a_query_costs_its_tokens() -> None:
    prices = Prices({"m": Price(2, 8)})
    # 1,000 tokens at 2 and 500 at 8 dollars a million: .002 + .004.
    np.testing.assert_allclose(prices.cost("m", np.array([1000.0]), np.array([500.0])), [0.006], rtol=1e-12)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"models": {"mine": [1, 2.5]}}))
    assert Prices.load(tmp_path / "p.json").models == {"mine": Price(1, 2.5)}


def test_a_model_without_a_price() -> None:
    with pytest.raises(TableError, match=r"no price for gpt-9.*--prices"):
        Prices.load().cost("gpt-9", np.ones(1), 1.0)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '{"models": []}', '{"models": {"m": 1}}', '{"models": {"m": [1]}}',
        '{"models": {"m": [1, "x"]}}', '{"models": {"m": [-1, 1]}}', '{"models": {"m": [1, NaN]}}',
    ],
)  # fmt: skip
def test_a_file_that_holds_no_prices(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(TableError, match=r"p\.json"):
        Prices.load(tmp_path / "p.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"p\.json cannot be read"):
        Prices.load(tmp_path / "p.json")
