"""Files into columns of plain values: CSV as Excel writes it, Parquet, JSON and lines of JSON, also gzipped. Nothing
is ever executed.
"""

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
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".xlsx")  # who has a workbook is told what to do
Columns = dict[str, list[Any]]
_HEAD = 2**20  # bytes in which the header ends
_PACKED = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # as workbooks begin, and documents
# What Windows-1252 does not have, or hardly any text of Western Europe: so it is Turkish, another alphabet's, of an old
# Mac, or damaged UTF-8.
_NOT_WESTERN = re.compile(
    rb"[\x00\x81\x83\x8a\x8d-\x90\x9a\x9d-\x9f\xd0\xdd\xde\xf0\xfd-\xff]|[\xa1-\xfe]{3}|\xc3[\x80-\xbf]"
)
_SEPARATOR = re.compile(r'"?sep=(.)"?[^\S\r\n]*(?:\r\n?|\n)', re.IGNORECASE)  # a first line for Excel
# Headings that are ours, in any case and spacing; all others stay as they are written.
_OURS = re.compile(r"(id|prompt|task|model|quality|cost|text|label)(?:\s*:\s*(.+))?", re.IGNORECASE | re.DOTALL)
_DECIMAL = re.compile(r"(-?\d+),(\d+(?:[eE][-+]?\d+)?)")
_OPEN = re.compile(r"-?[1-9]\d{0,2},\d{3}")  # 1,200 is 1200 here and 1.2 there
_GROUPED = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3})+(?:,\d{3}|\.\d+)")  # 1,200.5 and 1,200,000 are one thing only
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
    return _plain(path, content)


def text_of(path: Path) -> str:
    """All text of a file in UTF-8, UTF-16 or Windows-1252. Raises TableError, as `content_of` and for other text."""
    try:
        return _text(content_of(path))
    except UnicodeDecodeError as error:
        raise TableError(f"{path} cannot be read as text: save it as UTF-8 ({error})") from error


def opened(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def column_names(path: Path) -> list[str]:
    """The names of the columns of a Parquet file, of the first one in a folder, or of a file of text; none of JSON."""
    try:
        if is_parquet(path) and path.is_file():
            return list(pq.read_schema(path).names)
        if path.is_file() and not {".json", ".jsonl"} & set(path.suffixes):
            with opened(path) as file:
                head = _plain(path, file.read(_HEAD))
            _, rows = _parsed(_text(head + b"\n", errors="ignore"), strict=False)
            return [name for name in map(_named, next(rows, [])) if name]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise TableError(f"{path} cannot be read: {error}") from error
    parquets = parquet_files(path) if path.is_dir() else []
    return column_names(parquets[0]) if parquets else []


def parquet_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*.parquet") if file.is_file()) if path.is_dir() else [path]


def read_columns(path: Path) -> Columns:
    """A Parquet or CSV file, by column. CSV cells are strings; rows and columns without any name or content, as Excel
    leaves them, are left out, and rows may end early. Raises TableError.
    """
    if is_parquet(path):
        return read_parquet(path)
    csv.field_size_limit(2**31 - 1)
    try:
        mark, parsed = _parsed(text_of(path), strict=True)
        header, *rows = list(parsed) or [[]]
    except csv.Error as error:
        raise TableError(f"{path} cannot be read as CSV: {error}") from error
    names = [_named(cell) for cell in header]
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise TableError(f"{path} has two columns named {', '.join(twice)}: rename or remove one")
    for number, row in enumerate(rows, 1):
        if any(cell.strip() for cell in row[len(names) :]):
            raise TableError(
                f"{path}: row {number} has more cells than the first line, which names {len(names)} columns: put "
                f"quotation marks around a cell that holds {mark!r}"
            )
    columns: Columns = {name: [row[i] if i < len(row) else "" for row in rows] for i, name in enumerate(names) if name}
    return columns if mark == "," else {name: _with_points(cells) for name, cells in columns.items()}


def _plain(path: Path, start: bytes) -> bytes:
    """`start` itself. Raises TableError for workbooks and the like."""
    if start.startswith(_PACKED):
        raise TableError(
            f"{path} is a workbook, a document or an archive, and no plain text: save it as CSV (in Excel as CSV "
            "UTF-8) or as text, and give that"
        )
    return start


def _text(content: bytes, errors: str = "strict") -> str:
    """Of UTF-8, of UTF-16 where it begins so, or of Windows-1252: Excel writes all three. Raises UnicodeDecodeError."""
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig", errors)
    except UnicodeDecodeError:
        if wide or _NOT_WESTERN.search(content):
            raise
        return content.decode("cp1252")


def _parsed(text: str, strict: bool) -> tuple[str, Iterator[list[str]]]:
    """What parts the cells of CSV, and its rows but for those that hold nothing."""
    said = _SEPARATOR.match(text)
    text = text[said.end() :] if said else text
    mark = said[1] if said else _delimiter(text)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=strict)
    return mark, (row for row in rows if any(cell.strip() for cell in row))


def _named(cell: str) -> str:
    """A heading without spaces around it, ours in small letters."""
    found = _OURS.fullmatch(cell.strip())
    return cell.strip() if found is None else ":".join(filter(None, (found[1].lower(), found[2])))


def _with_points(cells: list[str]) -> list[str]:
    """A column of numbers with decimal commas, as stand between semicolons, with points; any other as it is."""
    pointed = [".".join(found.groups()) if (found := _DECIMAL.fullmatch(cell.strip())) else cell for cell in cells]
    return pointed if all(not cell.strip() or math.isfinite(number(cell)) for cell in pointed) else cells


def _delimiter(text: str) -> str:
    """What parts the cells of the first line that holds any: Excel writes what is usual in its country, or tabs."""
    header = next((line for line in io.StringIO(text) if line.strip(",;\t\r\n ")), "").replace("\r", " ")
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
    for number, line in enumerate(re.split("\r\n?|\n", text_of(path)), 1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TableError(f"{path}: line {number} cannot be read as JSON: {error}") from error
            if not isinstance(record, dict):
                raise TableError(f"{path}: line {number} is not a JSON object")
            yield number, record


def number(cell: Any, unit: str = "") -> float:
    """What a cell says as a number, with decimal comma or thousands apart where no other reading is possible; a blank
    or anything that is no number, such as 1,200, is NaN. It may have its `unit` beside it: "$", or "%", a hundredth.
    """
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = _written(str(cell).strip(), unit)
    return value if math.isfinite(value) else math.nan


def _written(cell: str, unit: str) -> float:
    bare = cell.strip(unit).strip()
    scale = 100 if unit == "%" and bare != cell else 1
    if _GROUPED.fullmatch(bare):
        bare = bare.replace(",", "")
    elif _DECIMAL.fullmatch(bare) and not _OPEN.fullmatch(bare):
        bare = bare.replace(",", ".")
    try:
        return float(bare) / scale
    except ValueError:
        return _TRUTH.get(bare.lower(), math.nan)


def text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def texts(cells: Sequence[Any]) -> list[str]:
    return [text(cell) for cell in cells]


def numbers(columns: Columns, names: Sequence[str], unit: str = "") -> NDArray[np.float64]:
    """These columns side by side, a row for each row of the file."""
    return np.array([[number(cell, unit) for cell in columns[name]] for name in names], np.float64).T
