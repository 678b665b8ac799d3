"""Files that are damaged, hostile or merely odd."""

import gzip
import math
from pathlib import Path

import pytest

from mofme.errors import TableError
from mofme.language.llm_routing.loaders import load_table, reading
from mofme.language.llm_routing.loaders.reading import content_of, number, read_columns, read_json, read_json_lines

TABLE = b"prompt,quality:a,cost:a\np,1,1\n"


def test_gzipped_or_not(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TABLE))
    assert load_table(tmp_path / "t.csv.gz").prompts == ("p",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", b"no gzip at all"),
        ("t.csv.gz", gzip.compress(TABLE * 1000)[:-30]),
        ("t.csv", TABLE + b"\xff\xfe,1,1\n"),
        ("t.csv", b"\xff\xfe"),
        ("t.csv", TABLE + b'"never closed,1,1\n'),
        ("t.parquet", b"PAR1 no parquet"),
        ("t.parquet", b""),
        ("dcrouter_train.json", b'[{"question": "q", "scores": '),
        ("dcrouter_train.json", b'[{"question": "q", "scores": 3}]'),
        ("dcrouter_train.json.gz", b"no gzip"),
        ("mt_bench_judgements.jsonl", b"{}"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=name.split(".")[0]):
        load_table(tmp_path / name, repair=True)


def test_files_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    (tmp_path / "large.csv").write_bytes(TABLE + b"q" * 1000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(TABLE + b"q" * 100_000))
    assert (tmp_path / "bomb.csv.gz").stat().st_size < 1000
    for name in ("large.csv", "bomb.csv.gz"):
        with pytest.raises(TableError, match="split it"):
            content_of(tmp_path / name)


def test_prompts_longer_than_a_cell_of_csv_usually_is(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(TABLE + b"x" * 200_000 + b",1,1\n")
    assert len(read_columns(tmp_path / "t.csv")["prompt"][1]) == 200_000


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[" * 100_000)
    with pytest.raises(TableError, match="cannot be read as JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n[2]\n')
    with pytest.raises(TableError, match="line 2 is not a JSON object"):
        read_json_lines(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b'{"a": 1}\n{"a"\n')
    with pytest.raises(TableError, match="line 2 cannot be read"):
        read_json_lines(tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), (" 1e-3 ", 0.001), (True, 1), ("False", 0), ("true", 1), (0.25, 0.25)],
)
def test_numbers(cell: object, value: float) -> None:
    assert number(cell) == value


@pytest.mark.parametrize("cell", ["", None, "nan", "good", "inf", float("nan"), float("-inf"), [1]])
def test_what_is_no_number(cell: object) -> None:
    assert math.isnan(number(cell))
