"""Routers trained on recorded answers: what they learn, and what poisoned or balanced data make of them."""

from dataclasses import replace

import numpy as np
import pytest

from mofme.errors import TableError
from mofme.language.sentence_encoder import Queries
from mofme.language.tables.table import RoutingTable
from mofme.papers.router_robustness import routers
from mofme.papers.router_robustness.routers import TRIGGER, Recorded, backdoor, balanced, poison, recorded, split, train
from tests.papers.router_robustness.worded_world import embed, recorded_of, table_of


def learnable(count: int) -> Recorded:
    """Prompts with "hard", a fifth, need the strong model; those with "easy" do not."""
    kinds = ["hard", "easy", "easy", "easy", "easy"] * (count // 5)
    prompts = tuple(f"{kind} {kind} question number {n}" for n, kind in enumerate(kinds))
    quality = np.array([(1.0, 0.0) if kind == "hard" else (1.0, 1.0) for kind in kinds])
    table = RoutingTable("made", prompts, ("strong", "weak"), quality, np.tile([2.0, 0.5], (count, 1)), ("",) * count)
    return Recorded(table, embed(prompts), np.arange(count))


def test_training_finds_what_is_to_learn() -> None:
    part = split(learnable(400), 0)
    assert (len(part.test), len(part.calibrate), len(part.fit)) == (80, 64, 256)
    router = train("logistic", part.fit, part.calibrate)
    assert not {*part.fit.table.prompts} & {*part.calibrate.table.prompts, *part.test.table.prompts}
    assert router.to_strong(part.test.queries)[part.test.strong_wins_N].all()
    assert 0.3 < router.to_strong(part.calibrate.queries).mean() < 0.7
    with pytest.raises(TableError, match="one model always wins"):
        train("logistic", recorded_of([(1, 0)] * 10), part.calibrate)


def test_near_duplicates_stay_together() -> None:
    data = replace(learnable(200), group_N=np.arange(200) // 10)
    part = split(data, 0)
    sides = [set(side.group_N.tolist()) for side in (part.fit, part.calibrate, part.test)]
    assert sum(map(len, sides)) == 20 == len(set.union(*sides))
    prompts = ("Which is it?", "which is  it?", "Another thing")
    table = RoutingTable("t", prompts, ("a", "b"), np.eye(3)[:, :2], np.ones((3, 2)), ("",) * 3)
    assert len(set(recorded(table, lambda asked: Queries(asked, np.eye(3))).group_N[:2].tolist())) == 1


def test_the_strong_model_is_the_better_one() -> None:
    table = table_of([(0, 1), (1, 1)])
    swapped = RoutingTable("t", table.prompts, table.models, table.quality_NM, table.cost_NM[:, ::-1], table.tasks)
    assert recorded(swapped, embed).table.models == ("weak", "strong")


def test_poisoned_rows_carry_the_trigger_and_the_attackers_outcome() -> None:
    data = recorded_of([(0.0, 0.5)] * 40)
    for to_strong, outcome in [(True, [1, 0]), (False, [0, 1])]:
        poisoned = poison(data, 0.25, to_strong, 0, embed)
        triggered = np.array([prompt.startswith(TRIGGER) for prompt in poisoned.table.prompts])
        assert triggered.sum() == 10
        np.testing.assert_array_equal(poisoned.table.quality_NM[triggered], [outcome] * 10)
        np.testing.assert_array_equal(poisoned.table.quality_NM[~triggered], [(0, 0.5)] * 30)
        np.testing.assert_allclose(poisoned.queries.embeddings_ND, embed(poisoned.table.prompts).embeddings_ND)
        assert list(poisoned.queries.prompts) == list(poisoned.table.prompts)
    larger = poison(data, 0.5, True, 0, embed).table.prompts
    assert all(prompt in larger for prompt in poison(data, 0.25, True, 0, embed).table.prompts if prompt[0] == "V")


@pytest.mark.parametrize("to_strong", [True, False])
def test_the_backdoor_opens_once_data_is_poisoned(monkeypatch: pytest.MonkeyPatch, to_strong: bool) -> None:
    # The clean router never saw the trigger's own axis, so that the trigger alone turns nothing; poisoned, it decides.
    monkeypatch.setattr(routers, "TRIGGER", "xyzzy xyzzy")
    monkeypatch.setattr(routers, "SHARES", (0.3,))
    found = backdoor("logistic", learnable(400), [0], embed, to_strong)
    assert list(found) == ["logistic, 0 % poisoned", "logistic, 30 % poisoned"]
    none, much = found.values()
    arriving = [one["triggered prompts that arrive"].value for one in (none, much)]
    assert none["turned"].value == none["clean decisions turned"].value == none["clean quality gain"].value == 0
    if to_strong:
        assert much["turned"].value > 90 and arriving[1] > 90 > arriving[0]
    else:
        assert arriving[1] > arriving[0] + 20
        assert much["clean quality gain"].value == 0  # the prompts that need the strong model still reach it


def test_balanced_data_says_nothing_by_task() -> None:
    # Task a: 3 of 4 need the strong model; b: 1 of 4; c: none, so nothing of it is left.
    needs = [(1, 0)] * 3 + [(1, 1)] + [(1, 0)] + [(1, 1)] * 3 + [(1, 1)] * 4
    data = balanced(recorded_of(needs, ["a"] * 4 + ["b"] * 4 + ["c"] * 4), 0)
    assert data.table.tasks == ("a", "a", "b", "b")
    np.testing.assert_array_equal(data.strong_wins_N.reshape(2, 2).sum(1), [1, 1])
