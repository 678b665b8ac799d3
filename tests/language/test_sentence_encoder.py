import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from sklearn.preprocessing import normalize

from mofme.errors import ModelError, TableError
from mofme.files import cache_root
from mofme.language import minilm
from mofme.language import sentence_encoder as module
from mofme.language.sentence_encoder import (
    EmbeddingCache,
    Queries,
    SentenceEncoder,
    grouped_splits,
    groups_of,
    near_duplicates,
    question_of,
)
from tests.language.prompts import PROMPTS


def test_rows_have_length_one_and_keep_their_order(tmp_path: Path) -> None:
    encoder = SentenceEncoder(tmp_path)
    together = encoder.embed([*PROMPTS, PROMPTS[0]])
    assert together.shape == (7, 384) and together.dtype == np.float64
    np.testing.assert_allclose((together**2).sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(together[0], together[6])
    alone = SentenceEncoder(remember=False).embed([PROMPTS[2]])[0]
    assert alone @ together[2] > 0.9995
    assert together[0] @ together[1] > 0.8 > 0.3 > together[0] @ together[2]
    assert encoder.embed([]).shape == (0, 384)
    np.testing.assert_array_equal(encoder.embed(np.array(PROMPTS[:2])), together[:2])
    for wrong in ("one text", [["a list"]], [1]):
        with pytest.raises(TypeError, match="prompts are texts in a list"):
            encoder.embed(wrong)  # type: ignore[arg-type]


def test_what_was_embedded_is_remembered_and_no_text_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFME_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    SentenceEncoder(remember=False).embed(["hi"])
    assert list(tmp_path.iterdir()) == []
    asked = ["a secret sentence", *PROMPTS[:2]]
    first = SentenceEncoder(tmp_path).embed(asked)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert written and b"secret" not in written
    monkeypatch.setattr(minilm, "_PACKAGE", "not_installed")
    np.testing.assert_array_equal(SentenceEncoder(tmp_path).embed(asked), first)
    with pytest.raises(ModelError, match="pip install"):
        SentenceEncoder(tmp_path).embed(["something new"])


VECTORS = {f"text {i}": np.full(3, i, np.float32) for i in range(10)}


@pytest.mark.parametrize("damage", [b"not a database, but long enough to be taken for one" * 50, b"short"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    cache = EmbeddingCache(tmp_path / "file.sqlite", "one")
    cache.path.write_bytes(damage)
    assert cache.get(["text 1"]) == {}
    cache.put(VECTORS)
    cache.put(VECTORS)
    assert len(cache.get(list(VECTORS))) == 10


def test_the_oldest_go_first(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "file.sqlite", "one", limit=4)
    cache.put(VECTORS)
    assert cache.get(list(VECTORS)).keys() == {"text 6", "text 7", "text 8", "text 9"}
    nowhere = EmbeddingCache(cache.path / "cache.sqlite", "one")  # a folder that cannot be is no obstacle
    nowhere.put(VECTORS)
    assert nowhere.get(list(VECTORS)) == {}


def test_many_may_write_at_once(tmp_path: Path) -> None:
    def put(index: int) -> None:
        EmbeddingCache(tmp_path / "file.sqlite", "one").put({f"{index} {i}": VECTORS["text 1"] for i in range(20)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(16)))
    with sqlite3.connect(tmp_path / "file.sqlite") as database:
        assert database.execute("SELECT count(*) FROM embeddings").fetchone() == (320,)
    database.close()


HINT = 'Print only a single choice from "A" or "B".'
LAST = f"Which of them is a mammal?\nA) trout\nB) whale\n{HINT}"
EXAMPLES = [
    f"Which of them is a metal?\nA) iron\nB) oak\n{HINT}\nAnswer:\nA\n\n",
    f"Which of them is a bird?\nA) eel\nB) crow\n{HINT}\nAnswer:\nB\n\n",
]


@pytest.mark.parametrize("same_line", [False, True])
def test_worked_examples_are_dropped(same_line: bool) -> None:
    """RouterBench's ARC has the answer on a line of its own, its Winogrande has "Answer:" behind the hint."""
    prompt = "".join(EXAMPLES) + LAST + "\nAnswer:"
    expected = LAST + "\nAnswer:"
    if same_line:
        prompt, expected = prompt.replace("\nAnswer:", " Answer:"), expected.replace("\nAnswer:", " Answer:")
    assert question_of(prompt) == expected
    assert question_of("Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA: 4\n\nQ: 3 + 4?\nA:") == "Q: 3 + 4?\nA:"


@pytest.mark.parametrize(
    "prompt",
    [
        "who wrote i will follow you into the dark",
        EXAMPLES[0] + LAST + "\nAnswer:",  # one example may be part of the question
        "".join(EXAMPLES) + "Which of these answers is wrong?",  # nothing is left open
        "Example 1:\n  Output: 3\n\nExample 2:\n  Output: 4\n\nWrite the function that does this.",
        "A: the first\n\nB: the second\n\nAnswer:",
    ],
)
def test_other_prompts_stay_as_they_are(prompt: str) -> None:
    assert question_of(prompt) == prompt


def test_of_a_very_long_prompt_both_ends_are_kept() -> None:
    question = question_of("Summarise this. " + "word " * 100_000 + "In one sentence, please.")
    assert question.startswith("Summarise this.") and question.endswith("In one sentence, please.")
    assert len(question) <= 4001


@given(st.text())
def test_any_text_has_a_question(text: str) -> None:
    question = question_of(text)
    assert bool(question) == bool(text.strip())
    assert question_of(question) == question


def test_a_long_run_of_blanks_takes_no_longer_than_its_length() -> None:
    # With time by the square of the length, this would take hours.
    blanks = " " * 2_000_000
    assert question_of(f"Q: a\nA:{blanks}one\n\nQ: b\nA: two\n\nQ: c\nA:") == "Q: c\nA:"


def same_partition(a: object, b: object) -> bool:
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


@pytest.mark.parametrize("block", [1, 7, 256])
def test_near_duplicates_are_joined_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    embeddings_ND = normalize(np.random.default_rng(0).normal(size=(60, 4)))
    groups = near_duplicates(embeddings_ND, 0.9)
    assert 1 < groups.max() + 1 < 60
    assert same_partition(groups, DBSCAN(0.1, min_samples=1, metric="cosine").fit_predict(embeddings_ND))


def test_groups_join_near_duplicates_and_same_text() -> None:
    # The first two by their embeddings, the second and third by their text: white space and case are no difference.
    queries = Queries(["a", "How  many?", "how\nmany? ", "How many"], np.eye(3)[[0, 0, 1, 2]])
    assert same_partition(groups_of(queries), [0, 0, 0, 1])
    assert near_duplicates(np.zeros((0, 4))).tolist() == []


@given(
    groups=st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda groups: len(set(groups)) > 1),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 3),
)
def test_no_group_is_on_both_sides(groups: list[int], share: float, seed: int) -> None:
    group_N = np.array(groups)
    tasks = ["odd" if group % 2 else "even" for group in groups]
    for train, test in grouped_splits(group_N, tasks, splits=3, test_share=share, seed=seed):
        assert len(train) and len(test)
        assert sorted([*train, *test]) == list(range(len(groups)))
        assert not set(group_N[train]) & set(group_N[test])


def test_each_task_gives_its_share() -> None:
    tasks = ["large"] * 800 + ["small"] * 50
    group_N = np.arange(850) // 2
    sizes = [np.bincount(np.array(tasks)[test] == "small") for _, test in grouped_splits(group_N, tasks)]
    assert all(abs(large - 160) <= 2 and abs(small - 10) <= 2 for large, small in sizes)


def test_splits_differ_and_repeat_with_the_seed_where_there_is_something_to_split() -> None:
    with pytest.raises(TableError, match="near-duplicates"):
        next(grouped_splits(np.zeros(5, int), [""] * 5))
    group_N, tasks = np.arange(100), [""] * 100
    first, second, other = (list(grouped_splits(group_N, tasks, seed=seed)) for seed in (0, 0, 1))
    tests = [tuple(test) for _, test in first]
    assert len(set(tests)) == 5 and tests == [tuple(test) for _, test in second]
    assert tests != [tuple(test) for _, test in other]
