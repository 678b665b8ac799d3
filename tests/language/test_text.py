import gzip
import json
from pathlib import Path

import pytest

from mofme.errors import TableError
from mofme.language.text import Question, read_questions, read_text


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_text_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Grüße\n\nund mehr", encoding="utf-8")
    assert read_text(tmp_path / "a.txt") == "Grüße\n\nund mehr"


def test_lines_of_json_become_passages(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"question": "1+1?", "answer": "2"}, {"text": "line\u2028separator"})
    assert read_text(path) == "1+1?\n2\n\nline\u2028separator"
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_text(packed) == read_text(path)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Who?", "choices": ["me", "you"], "answer": 1, "task": "t"},
        {"query": " Who? ", "choices": {"text": ["me", "you"], "label": ["1", "2"]}, "ground_truth": "2", "task": "t"},
        {"query": "Who?", "choices": "{'text': ['me', 'you']}", "ground_truth": "B", "task_name": "t"},
        {"question": "Who?", "options": ["me", "you"], "answer": "B", "category": "t"},
    ],
)
def test_every_way_to_write_a_question(tmp_path: Path, row: object) -> None:
    expected = Question("Question: Who?\nAnswer:", ("me", "you"), 1, "t")
    assert read_questions(lines(tmp_path / "q.jsonl", row)) == [expected]


def test_tasks_and_limit(tmp_path: Path) -> None:
    rows = [{"question": f"{i}", "choices": ["a", "b"], "answer": 0, "task": "xy"[i % 2]} for i in range(20)]
    rows.append({"question": "prove it", "answer": "a long proof", "task": "x"})
    path = lines(tmp_path / "q.jsonl", *rows)
    assert len(read_questions(path, ("x",))) == 10
    drawn = read_questions(path, ("x", "y"), limit=7, seed=1)
    numbers = [int(question.context.split()[1]) for question in drawn]
    assert len(numbers) == 7
    assert numbers == sorted(numbers)
    assert drawn == read_questions(path, ("x", "y"), limit=7, seed=1)
    assert drawn != read_questions(path, ("x", "y"), limit=7, seed=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1 cannot be read as JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"question": "Who?", "choices": ["a", "b"], "answer": "C"}', "line 1: 'C' names none of the 2 choices"),
        ('{"question": "Who?", "choices": ["a"], "answer": 0}', "line 1: expected a question and at least two"),
        ('{"question": "Who?", "answer": "me"}', "holds no multiple-choice question"),
    ],
)
def test_what_is_wrong_with_questions_is_said(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TableError, match=message):
        read_questions(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b" \n", "holds no text"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("a.jsonl.gz", b"not gzip", "cannot be read"),
        ("a.jsonl", b'{"other": 1}', "line 1: expected a `text`"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_text(tmp_path / name)
