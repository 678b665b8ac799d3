"""Tables as Excel writes them: with semicolons, with tabs in UTF-16, with a mark at the beginning, decimal commas."""

from pathlib import Path

import numpy as np
import pytest

from mofme.language.tables.formats import load_table

LINES = [
    ["prompt", "quality:a", "cost:a", "quality:b", "cost:b"],
    ['Größe; "alles", 1,5?', "0.5", "0.001", "1", "2e-3"],
    ["zwei\nZeilen", "0.25", "0", "0", "1"],
]


def written(mark: str, comma: bool) -> str:
    def cell(text: str) -> str:
        text = text.replace(".", ",") if comma and text[0].isdigit() else text
        return f'"{text.replace(chr(34), 2 * chr(34))}"' if set(text) & set('",;\t\n') else text

    return "\r\n".join(mark.join(map(cell, line)) for line in LINES) + "\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("mark", "comma"), [(",", False), (";", False), (";", True), ("\t", False), ("\t", True)])
def test_a_table_of_any_kind_is_the_same_table(tmp_path: Path, encoding: str, mark: str, comma: bool) -> None:
    (tmp_path / "a.csv").write_bytes(written(mark, comma).encode(encoding))
    table = load_table(tmp_path / "a.csv")
    assert table.prompts == ('Größe; "alles", 1,5?', "zwei\nZeilen") and table.models == ("a", "b")
    np.testing.assert_array_equal(table.quality_NM, [[0.5, 1], [0.25, 0]])
    np.testing.assert_array_equal(table.cost_NM, [[0.001, 0.002], [0, 1]])
