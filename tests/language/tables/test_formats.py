"""A table of one's own: read, refused, repaired, and written so that it comes back exactly; files that are damaged."""

import gzip
import math
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mofme.errors import TableError
from mofme.language.tables import columns
from mofme.language.tables.columns import content_of, number, read_columns, read_json, read_json_lines
from mofme.language.tables.formats import load_table
from mofme.language.tables.table import RoutingTable
from mofme.language.text import read_text
from tests.language.tables.plain_table import save_plain

HEADER = "prompt,task,quality:a,cost:a,quality:b,cost:b\n"


def written(folder: Path, lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(lines, encoding="utf-8")
    return path


def test_csv(tmp_path: Path) -> None:
    table = load_table(written(tmp_path, HEADER + '"one, or\ntwo?",x,1,0.25,0,0\nNA,,0.5,1e-6,1,0\n'))
    assert table.name == "mine" and table.models == ("a", "b")
    assert table.prompts == ("one, or\ntwo?", "NA") and table.tasks == ("x", "")
    assert table.quality_NM.tolist() == [[1, 0], [0.5, 1]] and table.cost_NM.tolist() == [[0.25, 0], [1e-6, 0]]
    assert table.repairs == ()


def test_parquet_and_gzip(tmp_path: Path) -> None:
    columns = {"prompt": ["p", "q"], "quality:a": [1.0, 0.0], "cost:a": [0.1, 0.2]}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    table = load_table(tmp_path / "mine.parquet")
    assert table.prompts == ("p", "q") and table.cost_NM.tolist() == [[0.1], [0.2]]
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(TABLE))
    assert load_table(tmp_path / "t.csv.gz").prompts == ("p",)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["p2,,,1,1,1", "p2,,1,1,1,", "p2,,1,1,good,1", "p2,,1,1,nan,1", "p2,,1,inf,1,1"], "blank or no numbers"),
        (["p2,,1,-0.001,1,1"], "costs below zero"),
        (["p2,,1.5,1,1,1", "p2,,1,1,-0.5,1"], "qualities outside 0 to 1"),
        (["   ,,1,1,1,1"], "blank prompts"),
    ],
)
def test_a_bad_row_is_refused_by_name_and_dropped_on_repair(tmp_path: Path, rows: list[str], problem: str) -> None:
    good = [f"good {i},,1,1,0,1" for i in range(30)]
    for row in rows:
        path = written(tmp_path, HEADER + "\n".join([*good, row]) + "\n")
        with pytest.raises(TableError, match=rf"mine\.csv .*{problem} in 1 rows \(31\).*--repair"):
            load_table(path)
        table = load_table(path, repair=True)
        assert len(table) == 30 and len(table.repairs) == 1 and "dropped 1 rows (31)" in table.repairs[0]


def test_repeated_prompts_are_averaged_on_repair(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "p,x,1,1,0,1\nq,,1,1,1,1\np,y,0,3,0,1\n")
    with pytest.raises(TableError, match=r"repeated prompts in 1 rows \(3\)"):
        load_table(path)
    table = load_table(path, repair=True)
    assert table.prompts == ("p", "q") and table.tasks == ("x", "")
    assert table.quality_NM[0].tolist() == [0.5, 0] and table.cost_NM[0].tolist() == [2, 1]


def test_a_model_that_is_mostly_blank_goes_not_its_prompts(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "p,,1,1,,\nq,,1,1,1,1\n")
    table = load_table(path, repair=True)
    assert table.models == ("a",) and len(table) == 2
    assert "dropped the model b" in table.repairs[0]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "p,,1,1,1,1\np,,1,1,1,1\nq,,2,1,1,1\nr,,1,-1,1,1\n")
    with pytest.raises(TableError, match=r"outside 0 to 1.*below zero.*repeated"):
        load_table(path)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("prompt,quality:a\np,1\n", "a needs both a column"),
        ("prompt,quality:a,cost:b\np,1,1\n", "a, b needs both a column"),
        ("prompt,quality:a,cost:a,cost:a\np,1,1,1\n", "two columns named cost:a"),
        ("prompt,quality:a,cost:a\np, or q,1,1\n", "row 1 has more cells than the first line, .* quotation marks"),
        ("prompt,quality:a,cost:a\n", "no prompts or no models"),
    ],
)
def test_files_that_no_repair_can_mend(tmp_path: Path, lines: str, problem: str) -> None:
    with pytest.raises(TableError, match=problem):
        load_table(written(tmp_path, lines), repair=True)


LONG = "id,prompt,model,quality,cost\n"


def test_one_row_an_answer(tmp_path: Path) -> None:
    path = written(tmp_path, LONG + "1,p,a,1,0.1\n1,p,b,0,0.2\n2,q,b,1,0.2\n2,q,a,0.5,0.1\n")
    table = load_table(path)
    assert table.prompts == ("p", "q") and table.models == ("a", "b")
    assert table.quality_NM.tolist() == [[1, 0], [0.5, 1]] and table.cost_NM.tolist() == [[0.1, 0.2]] * 2
    with pytest.raises(TableError, match="row 2 is a second answer of a to 1"):
        load_table(written(tmp_path, LONG + "1,p,a,1,1\n1,p,a,0,1\n"), repair=True)


def test_without_ids_a_prompt_is_told_by_its_text(tmp_path: Path) -> None:
    lines = "prompt,model,quality,cost\np,a,1,0.1\nq,b,1,0.2\np,b,0,0.2\nq,a,0.5,0.1\n"
    table = load_table(written(tmp_path, lines))
    assert table.prompts == ("p", "q") and table.models == ("a", "b")
    assert table.quality_NM.tolist() == [[1, 0], [0.5, 1]] and table.cost_NM.tolist() == [[0.1, 0.2]] * 2
    with pytest.raises(TableError, match=r"row 5 is a second answer of b to p: .* by a column id"):
        load_table(written(tmp_path, lines + "p,b,1,0.2\n"))
    with pytest.raises(TableError, match=r"in 1 rows \(5\), first the quality of b in row 5 "):
        many = "".join(f"{prompt},{model},1,0.1\n" for prompt in range(30) for model in "ab")
        load_table(written(tmp_path, lines + "r,a,1,0.1\n" + many))


def test_spaces_around_a_model_make_no_other_model(tmp_path: Path) -> None:
    table = load_table(written(tmp_path, LONG + "1,p,a,1,0.1\n1,p,b,0,0.2\n2,q,a ,1,0.1\n2,q, b,1,0.2\n"))
    assert table.models == ("a", "b") and len(table) == 2


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("most", [5, 10, 100])
def test_qualities_on_another_scale_are_no_rows_to_leave_out(tmp_path: Path, repair: bool, most: int) -> None:
    rows = [f"p{i},,{i % 2 * most},1,{i // 2 % 2 * most},1" for i in range(40)]
    with pytest.raises(TableError, match=rf"mine\.csv: qualities go up to {most}: give them from 0 to 1"):
        load_table(written(tmp_path, HEADER + "\n".join(rows) + "\n"), repair=repair)


@pytest.mark.parametrize("prompt", [b"one", ["one"], {"role": "user", "content": "one"}])
def test_prompts_that_are_no_text_are_refused(tmp_path: Path, prompt: object) -> None:
    pq.write_table(pa.table({"prompt": [prompt], "quality:a": [1.0], "cost:a": [0.1]}), tmp_path / "mine.parquet")
    with pytest.raises(TableError, match="the prompt of row 1 is no text"):
        load_table(tmp_path / "mine.parquet", repair=True)


def test_models_that_were_asked_different_prompts_are_refused(tmp_path: Path) -> None:
    """Row 2 of the second model is another question: joined by position, all its outcomes would be off."""
    good = "".join(f"{i},p{i},{model},1,1\n" for i in range(3, 40) for model in "ab")
    path = written(tmp_path, LONG + good + "1,p,a,1,1\n1,p,b,1,1\n2,q,a,1,1\n2,other,b,1,1\n")
    with pytest.raises(TableError, match="the models were not asked the same"):
        load_table(path)
    table = load_table(path, repair=True)
    assert len(table) == 38 and "q" not in table.prompts and "other" not in table.prompts


CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = st.text(CHARACTERS, min_size=1, max_size=20).filter(str.strip)
NAMES = st.text(CHARACTERS, min_size=1, max_size=8).filter(lambda name: name == name.strip())


@st.composite
def tables(draw: st.DrawFn) -> RoutingTable:
    prompts = draw(st.lists(WORDS, min_size=1, max_size=6, unique=True))
    models = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    cells = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e6)), min_size=len(models), max_size=len(models))
    drawn = np.array([draw(cells) for _ in prompts])
    tasks = draw(st.lists(st.text(CHARACTERS, max_size=5), min_size=len(prompts), max_size=len(prompts)))
    return RoutingTable("any", tuple(prompts), tuple(models), drawn[..., 0], drawn[..., 1], tuple(tasks))


@given(table=tables())
@example(table=RoutingTable("any", ("p",), ("a\rb",), np.ones((1, 1)), np.ones((1, 1)), ("",)))
def test_what_is_written_is_read_back_exactly(table: RoutingTable) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        save_plain(table, path)
        back = load_table(path)
        assert list(Path(folder).iterdir()) == [path]
    assert (back.name, back.prompts, back.models, back.tasks) == (table.name, table.prompts, table.models, table.tasks)
    np.testing.assert_array_equal(back.quality_NM, table.quality_NM)
    np.testing.assert_array_equal(back.cost_NM, table.cost_NM)


TABLE = b"prompt,quality:a,cost:a\np,1,1\n"


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


def test_files_above_the_limit_and_long_cells_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.csv").write_bytes(TABLE + b"x" * 200_000 + b",1,1\n")
    assert len(read_columns(tmp_path / "t.csv")["prompt"][1]) == 200_000
    monkeypatch.setattr(columns, "MAX_BYTES", 1000)
    (tmp_path / "large.csv").write_bytes(TABLE + b"q" * 1000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(TABLE + b"q" * 100_000))
    assert (tmp_path / "bomb.csv.gz").stat().st_size < 1000
    for name in ("large.csv", "bomb.csv.gz"):
        with pytest.raises(TableError, match="split it"):
            content_of(tmp_path / name)


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


def test_numbers() -> None:
    cells = {"1": 1, " 1e-3 ": 0.001, True: 1, "False": 0, "true": 1, 0.25: 0.25}
    assert [number(cell) for cell in cells] == list(cells.values())
    assert all(math.isnan(number(cell)) for cell in ("", None, "nan", "good", "inf", math.nan, -math.inf, [1]))


@pytest.mark.parametrize(
    ("cell", "unit", "value"),
    [
        ("85%", "%", 0.85),
        ("85,5 %", "%", 0.855),
        ("0.85", "%", 0.85),
        ("$0.001", "$", 0.001),
        ("0,001 $", "$", 0.001),
        ("0,85", "", 0.85),
        ("0,850", "", 0.85),  # no thousands begin with 0
        ("1,2", "", 1.2),
        ("1,200.5", "$", 1200.5),
        ("-1,200,000", "", -1_200_000),
    ],
)
def test_numbers_as_people_write_them(cell: str, unit: str, value: float) -> None:
    assert number(cell, unit) == value


@pytest.mark.parametrize(
    ("cell", "unit"),
    [("1,200", "$"), ("85%", "$"), ("$1", "%"), ("85%", ""), ("1,20,0", ""), ("12,34.5", ""), ("€1", "$"), ("%", "%")],
)
def test_numbers_that_may_be_two_things_are_none(cell: str, unit: str) -> None:
    assert math.isnan(number(cell, unit))


def test_units_and_commas_are_read_and_what_is_open_is_told(tmp_path: Path) -> None:
    table = load_table(written(tmp_path, HEADER + 'p,,85%,$0.001,"0,5",$2\nq,,100 %,"$1,200.50",true,$0\n'))
    assert table.quality_NM.tolist() == [[0.85, 0.5], [1, 1]] and table.cost_NM.tolist() == [[0.001, 2], [1200.5, 0]]
    # Between semicolons a comma is of decimals, also where another cell of the column is blank or no number.
    lines = HEADER.replace(",", ";") + "p;;0,85;1,250;1;0\nq;;1;;1;0\nr;;n/a;2;1;0\n"
    with pytest.raises(TableError, match=r"a with more than 5% .*, first the cost of a in row 2 \(write 0\.85 or"):
        load_table(written(tmp_path, lines))
    lines = lines.replace(";;1;0", ";0;1;0")
    with pytest.raises(TableError, match=r"first the quality of a in row 3 "):
        load_table(written(tmp_path, lines))
    assert load_table(written(tmp_path, lines.replace("n/a", "1"))).cost_NM.tolist() == [[1.25, 0], [0, 0], [2, 0]]
    rows = "".join(f"p{i},,1,1,1,1\n" for i in range(40))
    with pytest.raises(TableError, match=r"no numbers in 1 rows \(41\), first the cost of b in row 41 \(write 0\.85"):
        load_table(written(tmp_path, HEADER + rows + 'q,,1,1,1,"1,200"\n'))


LINES = [
    ["prompt", "quality:a", "cost:a", "quality:b", "cost:b"],
    ['Größe; "alles", 1,5?', "0.5", "0.001", "1", "2e-3"],
    ["zwei\nZeilen", "0.25", "0", "0", "1"],
]


def written_excel(mark: str, comma: bool) -> str:
    def cell(text: str) -> str:
        text = text.replace(".", ",") if comma and text[0].isdigit() else text
        return f'"{text.replace(chr(34), 2 * chr(34))}"' if set(text) & set('",;\t\n') else text

    return "\r\n".join(mark.join(map(cell, line)) for line in LINES) + "\r\n"


@pytest.mark.parametrize(
    ("encoding", "mark", "comma"),
    [("utf-8", ",", False), ("utf-8-sig", ";", False), ("cp1252", ";", True), ("utf-16", "\t", False)],
)
def test_a_table_of_any_kind_is_the_same_table(tmp_path: Path, encoding: str, mark: str, comma: bool) -> None:
    (tmp_path / "a.csv").write_bytes(written_excel(mark, comma).encode(encoding))
    table = load_table(tmp_path / "a.csv")
    assert table.prompts == ('Größe; "alles", 1,5?', "zwei\nZeilen") and table.models == ("a", "b")
    np.testing.assert_array_equal(table.quality_NM, [[0.5, 1], [0.25, 0]])
    np.testing.assert_array_equal(table.cost_NM, [[0.001, 0.002], [0, 1]])


SAID = written_excel(";", True)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.txt", written_excel("\t", True)),
        ("A.CSV", SAID),
        ("a.csv.txt", SAID),
        ("a.csv", "sep=;\r\n" + SAID),
        ("a.csv", '"sep=\t"\r\n' + written_excel("\t", True)),
        ("a.csv", "\r\n;;;;\r\n" + SAID),
        ("a.csv", SAID + ";;;;\r\n; ;;;\r\n"),
        ("a.csv", SAID.replace("\r\n", ";;\r\n")),
        ("a.csv", SAID.replace("cost:b\r\n", "cost:b;Task;Notes\r\n").replace("1;0,002", "1;0,002;;good")),
        ("a.csv", SAID.replace("prompt;quality:a;cost:a", " Prompt ;Quality: a ;COST:a")),
    ],
)
def test_what_excel_leaves_around_a_table_changes_nothing(tmp_path: Path, name: str, lines: str) -> None:
    (tmp_path / name).write_bytes(lines.encode("utf-16"))
    table = load_table(tmp_path / name)
    assert (table.prompts, table.models) == (('Größe; "alles", 1,5?', "zwei\nZeilen"), ("a", "b"))
    np.testing.assert_array_equal(table.cost_NM, [[0.001, 0.002], [0, 1]])


def test_letters_of_western_europe_are_known(tmp_path: Path) -> None:
    said = "« Où est l\u2019œuvre ? » créée à Noël \u2013 5 €; ¿¡Qué! Señor, Straße, smörgåsbord, São João"
    (tmp_path / "a.txt").write_bytes(said.encode("cp1252"))
    assert read_text(tmp_path / "a.txt") == said


@pytest.mark.parametrize(
    "content",
    [
        SAID.encode("mac-roman"),
        SAID.encode() + b"\xe9",
        *(
            SAID.replace("Größe", word).encode(codec)
            for word, codec in (("Где", "cp1251"), ("büyük şehir", "cp1254"), ("北京", "gb18030"), ("příliš", "cp1250"))
        ),
    ],
)
def test_letters_that_cannot_be_told_are_not_guessed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(TableError, match=r"a\.csv cannot be read as text: save it as UTF-8"):
        load_table(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a.txt"])
def test_who_has_a_workbook_is_told_what_to_do(tmp_path: Path, name: str) -> None:
    for start in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        (tmp_path / name).write_bytes(start + bytes(100))
        for read in (load_table, read_columns, read_text):
            with pytest.raises(TableError, match=r"is a workbook, .* save it as CSV"):
                read(tmp_path / name)


def test_what_is_no_table_is_told_by_its_columns(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no table of a format known here: it has the columns Frage, Antwort"):
        load_table(written(tmp_path, "Frage,Antwort\na,b\n"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_texts_and_lines_of_json_are_read_alike(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("Größe\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "Größe\r\n"
    (tmp_path / "a.jsonl").write_bytes('{"text": "Größe"}\r\n\r\n{"text": "zwei"}'.encode(encoding))
    assert read_json_lines(tmp_path / "a.jsonl") == [{"text": "Größe"}, {"text": "zwei"}]
