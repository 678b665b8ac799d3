import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.errors import TableError
from mofme.language import sentence_encoder as module
from mofme.language.sentence_encoder import Queries, grouped_splits, groups_of, near_duplicates, same_text


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_loop(embeddings_ND: np.ndarray, threshold: float) -> list[int]:
    """Each prompt takes the smallest number among those it is a near-duplicate of, until nothing changes."""
    groups = list(range(len(embeddings_ND)))
    changed = True
    while changed:
        changed = False
        for i, a in enumerate(embeddings_ND):
            for j, b in enumerate(embeddings_ND):
                if a @ b >= threshold and groups[i] > groups[j]:
                    groups[i], changed = groups[j], True
    return groups


def same_partition(a: object, b: object) -> bool:
    pairs = set(zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_near_duplicates_of_near_duplicates_are_one_group() -> None:
    # Angles 0, 15, 30 and 90 degrees: cosines of neighbours .966, of the first and the third .866.
    angles = np.deg2rad([0, 90, 15, 30])
    groups = near_duplicates(np.stack([np.cos(angles), np.sin(angles)], 1), 0.95)
    assert same_partition(groups, [0, 1, 0, 0])


@pytest.mark.parametrize("block", [1, 7, 256])
def test_as_a_loop_finds_them_whatever_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    embeddings_ND = unit(np.random.default_rng(0).normal(size=(60, 4)))
    groups = near_duplicates(embeddings_ND, 0.9)
    assert 1 < groups.max() + 1 < 60
    assert same_partition(groups, by_loop(embeddings_ND, 0.9))


def test_no_prompts() -> None:
    assert near_duplicates(np.zeros((0, 4))).tolist() == []


def test_same_text_but_for_white_space_and_case() -> None:
    assert same_text(["How  many?", "how many? ", "How\nmany?", "How many"]).tolist() == [0, 0, 0, 1]


def test_groups_join_near_duplicates_and_same_text() -> None:
    # The first two by their embeddings, the second and third by their text.
    queries = Queries(["a", "b", "B ", "c"], np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]))
    assert same_partition(groups_of(queries), [0, 0, 0, 1])


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


def test_splits_differ_and_repeat_with_the_seed() -> None:
    group_N, tasks = np.arange(100), [""] * 100
    first, second, other = (list(grouped_splits(group_N, tasks, seed=seed)) for seed in (0, 0, 1))
    tests = [tuple(test) for _, test in first]
    assert len(set(tests)) == 5 and tests == [tuple(test) for _, test in second]
    assert tests != [tuple(test) for _, test in other]


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(TableError, match="near-duplicates"):
        next(grouped_splits(np.zeros(5, int), [""] * 5))
