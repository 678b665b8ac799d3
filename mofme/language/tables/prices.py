"""What a million tokens of each model cost, and so what a query costs where nobody wrote it down."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mofme.errors import TableError
from mofme.language.tables.table import FloatArray

CHARS_PER_TOKEN = 4.0  # of English text, as the makers of the models advise to count
_LIST_PRICES = Path(__file__).with_name("prices.json")


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens, of the prompt and of the answer."""

    input: float
    output: float


@dataclass(frozen=True)
class Prices:
    """The price of each model, by the name that the tables use, where they are from and of when they are."""

    models: Mapping[str, Price]
    source: str = ""
    as_of: str = ""

    @classmethod
    def load(cls, path: Path | None = None) -> "Prices":
        """The prices in a JSON file, or the public list prices that come with the package.

        `{"as_of": "...", "source": "...", "models": {"gpt-4o": [2.5, 10]}}`, dollars per million tokens in and out;
        only "models" is needed. Raises TableError.
        """
        path = path or _LIST_PRICES
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            models = {str(name): Price(float(pair[0]), float(pair[1])) for name, pair in content["models"].items()}
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            example = '{"models": {"gpt-4o": [2.5, 10]}}'
            raise TableError(f"{path} cannot be read as prices ({error}): it has to look like {example}") from error
        for name, price in models.items():
            if not all(math.isfinite(dollars) and dollars >= 0 for dollars in (price.input, price.output)):
                raise TableError(f"{path}: the price of {name} has to be two numbers, zero or above")
        return cls(models, str(content.get("source", "")), str(content.get("as_of", "")))

    def cost(self, model: str, input_tokens_N: FloatArray, output_tokens_N: FloatArray | float) -> FloatArray:
        """Dollars (N,) of N queries. Raises TableError for a model without a price."""
        if model not in self.models:
            raise TableError(f"there is no price for {model}: give a file of prices that names it (--prices)")
        price = self.models[model]
        return (input_tokens_N * price.input + output_tokens_N * price.output) / 1e6
