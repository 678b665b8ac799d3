"""Files into columns of plain values: CSV, Parquet, JSON and lines of JSON, also gzipped. Nothing is ever executed."""

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mofme.errors import TableError

MAX_BYTES = 2 * 1024**3  # of a file, and of what is in it when it is gzipped
Columns = dict[str, list[Any]]
_HEAD = 2**20  # bytes in which the header ends
_DECIMAL = re.compile(r"^\s*(-?\d+),(\d+(?:[eE][-+]?\d+)?)\s*$")
_TRUTH = {"true": 1.0, "false": 0.0}


def content_of(path: Path) -> bytes:
    """All bytes of a file, unzipped. Raises TableError for what is not there, is damaged or larger than MAX_BYTES."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TableError(f"{path} is larger than {MAX_BYTES / 1e9:.1f} GB: split it or drop columns")
        with opened(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    if len(content) > MAX_BYTES:
        raise TableError(f"{path} holds more than {MAX_BYTES / 1e9:.1f} GB: split it or drop columns")
    return content


def opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def column_names(path: Path) -> list[str]:
    """The names of the columns of a CSV or Parquet file, of the first Parquet file in a folder; else nothing."""
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            with opened(path) as file:
                head = file.read(_HEAD)
            lines = _text(head + b"\n", errors="ignore")
            return next(csv.reader(io.StringIO(lines, newline=""), delimiter=_delimiter(lines)), [])
        if is_parquet(path):
            return list(pq.read_schema(path).names)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    parquets = parquet_files(path) if path.is_dir() else []
    return column_names(parquets[0]) if parquets else []


def parquet_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.parquet")) if path.is_dir() else [path]


def read_columns(path: Path) -> Columns:
    """A CSV or Parquet file, by column; CSV cells are strings. Raises TableError."""
    if is_parquet(path):
        return read_parquet(path)
    csv.field_size_limit(2**31 - 1)
    try:
        lines = _text(content_of(path))
        reader = csv.reader(io.StringIO(lines, newline=""), delimiter=_delimiter(lines), strict=True)
        header, *rows = list(reader) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} cannot be read as CSV in UTF-8 or UTF-16: {error}") from error
    rows = [row for row in rows if row]
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise TableError(f"{path} has two columns named {', '.join(twice)}: rename or remove one")
    uneven = [number for number, row in enumerate(rows, 1) if len(row) != len(header)]
    if uneven:
        raise TableError(f"{path}: row {uneven[0]} has another number of cells than the {len(header)} of the header")
    columns: Columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return columns if _delimiter(lines) == "," else {name: _with_points(cells) for name, cells in columns.items()}


def _text(content: bytes, errors: str = "strict") -> str:
    """Of UTF-8 or, where it begins so, UTF-16, as Excel writes both. Raises UnicodeDecodeError."""
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return content.decode("utf-16" if wide else "utf-8-sig", errors)


def _with_points(cells: list[str]) -> list[str]:
    """A column of numbers with decimal commas, as stand between semicolons, with points; any other as it is."""
    pointed = [_DECIMAL.sub(r"\1.\2", cell) for cell in cells]
    return pointed if all(not cell.strip() or math.isfinite(number(cell)) for cell in pointed) else cells


def _delimiter(lines: str) -> str:
    """What parts the cells of the header: Excel writes what is usual in its country, or tabs."""
    header = lines.lstrip("\ufeff").split("\n", 1)[0].replace("\r", " ")
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in ",;\t"}
    return max(counts, key=lambda mark: counts[mark])


def read_parquet(path: Path, columns: list[str] | None = None) -> Columns:
    """A Parquet file, or all of a folder one after another; `columns` may name fields of a struct as `a.b`."""
    files = parquet_files(path)
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        raise TableError(f"{path} is larger than {MAX_BYTES / 1e9:.1f} GB: split it or drop columns")
    try:
        parts = [_read(file, columns) for file in files]
        return pa.concat_tables(parts).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path} cannot be read as Parquet: {error}") from error


def _read(file: Path, columns: list[str] | None) -> pa.Table:
    with pq.ParquetFile(file) as parquet:  # pq.read_table would take "a=b" in a path for a column
        return parquet.read(columns=columns)


def read_json(path: Path) -> Any:
    try:
        return json.loads(content_of(path))
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path} cannot be read as JSON: {error}") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return [record for _, record in numbered_records(path)]


def numbered_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects in lines of JSON, each with the number of its line; blank lines are passed over."""
    for number, line in enumerate(content_of(path).splitlines(), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TableError(f"{path}: line {number} cannot be read as JSON: {error}") from error
            if not isinstance(record, dict):
                raise TableError(f"{path}: line {number} is not a JSON object")
            yield number, record


def number(cell: Any) -> float:
    """What a cell says as a number; a blank or anything that is no number is NaN."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return _TRUTH.get(str(cell).strip().lower(), math.nan)
    return value if math.isfinite(value) else math.nan


def text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def texts(cells: Sequence[Any]) -> list[str]:
    return [text(cell) for cell in cells]


def numbers(columns: Columns, names: Sequence[str]) -> NDArray[np.float64]:
    """These columns side by side, a row for each row of the file."""
    return np.array([[number(cell) for cell in columns[name]] for name in names], np.float64).T
