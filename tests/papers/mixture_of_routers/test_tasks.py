from pathlib import Path

import numpy as np
import pytest

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries, SentenceEncoder
from mofme.papers.mixture_of_routers.training import Task, make_task, own_task, read_task


class Letters(SentenceEncoder):
    """Texts are near-duplicates if they begin with the same three letters."""

    def __init__(self) -> None:
        super().__init__(remember=False)

    def queries(self, prompts: list[str]) -> Queries:  # type: ignore[override]
        kinds = sorted({prompt[:3] for prompt in prompts})
        return Queries(prompts, np.eye(len(kinds))[[kinds.index(prompt[:3]) for prompt in prompts]])


TEXTS = [f"{group:03d} {number}" for group in range(50) for number in range(2)]
LABELS = ["even" if group % 2 == 0 else "odd" for group in range(50) for _ in range(2)]


def parts_of(task: Task) -> list[set[str]]:
    return [set(part.texts) for part in (task.training, task.validation, task.test)]


def test_three_parts_hold_all_texts_and_no_twins_are_parted() -> None:
    task = make_task("numbers", TEXTS, LABELS, Letters())
    parts = parts_of(task)
    assert sorted(text for part in parts for text in part) == TEXTS
    assert [len(part) for part in parts] == [60, 20, 20]
    groups = [{text[:3] for text in part} for part in parts]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_classes_stay_with_their_texts() -> None:
    task = make_task("numbers", TEXTS, LABELS, Letters())
    assert task.labels == ("even", "odd")
    for part in (task.training, task.validation, task.test):
        assert [int(text[:3]) % 2 for text in part.texts] == part.label_N.tolist()


def test_it_is_always_parted_the_same_way() -> None:
    ours, again = (make_task("numbers", TEXTS, LABELS, Letters(), limit=60) for _ in range(2))
    assert parts_of(ours) == parts_of(again)
    assert sum(map(len, parts_of(ours))) == 60


def test_a_file_of_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"{t},{c}\n" for t, c in zip(TEXTS, LABELS, strict=True)))
    task = read_task(path, Letters())
    assert (task.name, task.labels) == ("mine", ("even", "odd"))
    assert parts_of(task) == parts_of(make_task("x", TEXTS, LABELS, Letters()))


def test_what_ships_is_a_task() -> None:
    task = own_task(Letters())
    assert len(task.labels) == 7
    assert sum(map(len, parts_of(task))) == 196


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [(["a", "b"], ["x", "x"], "at least two classes, it has 1"), (["a", " "], ["x", "y"], "blank texts")],
)
def test_what_is_no_task_is_refused(texts: list[str], labels: list[str], message: str) -> None:
    with pytest.raises(TableError, match=message):
        make_task("t", texts, labels, Letters())


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(TableError, match=r"mine\.csv is no table"):
        read_task(path, Letters())
