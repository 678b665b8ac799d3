from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mofme.core import rerouting
from mofme.errors import ModelError
from mofme.language.text import Question
from mofme.papers.ladimo.conversion import set_layers
from mofme.papers.ladimo.converted_layer import Recipe
from mofme.papers.r2t2 import text_experiment
from mofme.papers.r2t2.text_experiment import BASE, DESCENT, ORACLE, UNIFORM, VOTE, Setting

if TYPE_CHECKING:
    from mofme.language.pretrained import PretrainedLM


class Letters:
    """Embeds a text by how often it has which letter."""

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        counts = np.array([[prompt.count(letter) for letter in "abcdefghij"] for prompt in prompts], float) + 0.01
        embedded: NDArray[np.float64] = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return embedded


def questions(count: int, seed: int) -> list[Question]:
    random = np.random.default_rng(seed)
    words = ["".join(random.choice(list("abcdefghij"), 4)) for _ in range(3 * count)]
    return [
        Question(f"{words[3 * i]}:", (words[3 * i + 1], words[3 * i + 2]), int(random.integers(2)), "t")
        for i in range(count)
    ]


@pytest.fixture
def lm(tiny_pretrained: Callable[..., PretrainedLM], monkeypatch: pytest.MonkeyPatch) -> PretrainedLM:
    monkeypatch.setattr(text_experiment, "SentenceEncoder", Letters)
    monkeypatch.setattr(rerouting, "descend", partial(rerouting.descend, steps=4))
    lm = tiny_pretrained()
    torch.manual_seed(1)
    set_layers(lm.model, Recipe(experts=4, active=2), [{"kind": "top-k", "value": 2}] * 3)
    lm.model.requires_grad_(False)
    return lm


def test_what_is_measured(lm: PretrainedLM, tmp_path: Path) -> None:
    pool, test = questions(20, 0), questions(3, 1)
    setting = Setting(test, [*pool, test[0]], layers=1, k=2, tuning=1)
    first = text_experiment.measure(lm, replace(setting, limit=2), tmp_path)
    lines = next(tmp_path.glob("*.jsonl")).read_text().splitlines()
    assert len(lines) == 3  # the rates, and a line a question
    rows = text_experiment.measure(lm, setting, tmp_path)
    assert rows[:2] == first
    assert all(row[ORACLE]["chance"] > row[BASE]["chance"] for row in rows)
    assert {row["rates"][DESCENT] for row in rows} <= {0.01, 0.1, 1.0}
    result = text_experiment.as_result(rows, "command", 0)
    accuracy = {row.name: row.figures["right, %"].value for row in result.rows if row.table == "accuracy"}
    assert accuracy[BASE] == pytest.approx(100 * np.mean([row[BASE]["right"] for row in rows]))
    assert {UNIFORM, VOTE} < accuracy.keys()


def test_a_limit_leaves_out_questions_and_changes_nothing_else(lm: PretrainedLM, tmp_path: Path) -> None:
    test = questions(3, 1)  # the last is in the pool: nothing is learned from it, whether it is measured or not
    setting = Setting(test, [test[2], *questions(20, 0)], layers=1, k=2, tuning=1)
    few, all_of_them = (
        text_experiment.measure(lm, replace(setting, limit=limit), tmp_path / str(limit)) for limit in (1, None)
    )
    assert (len(few), len(all_of_them)) == (1, 3)
    for arm, value in few[0].items():
        assert without_seconds(value) == without_seconds(all_of_them[0][arm])
    assert set(text_experiment.drawn(test, 1)) == set(test)


def without_seconds(value: object) -> object:
    return {name: one for name, one in value.items() if name != "seconds"} if isinstance(value, dict) else value


def test_the_same_words_with_other_choices_are_another_question_and_so_is_another_model(
    lm: PretrainedLM, tmp_path: Path
) -> None:
    one = questions(1, 1)[0]
    other = replace(one, choices=one.choices[::-1])  # now the other choice is right
    setting = Setting([one, other], questions(20, 0), layers=1, k=2, tuning=1)
    rows = text_experiment.measure(lm, setting, tmp_path)
    assert rows[0][BASE]["chance"] + rows[1][BASE]["chance"] == pytest.approx(1, abs=1e-5)
    with pytest.raises(ModelError, match="another model: take another folder"):
        text_experiment.measure(replace(lm, name="another"), setting, tmp_path)


def test_what_cannot_be_rerouted_is_told(
    lm: PretrainedLM, tiny_pretrained: Callable[..., PretrainedLM], tmp_path: Path
) -> None:
    pool, test = questions(12, 0), questions(1, 1)
    tail = text_experiment.Tail(lm, 1)
    wrong = [replace(question, answer=1 - tail.answer(tail.read(question))[0]) for question in pool]
    setting = Setting(test, pool, layers=1, k=2, tuning=1)
    for number, (model, asked, told) in enumerate(
        (
            (lm, replace(setting, layers=9), "layers: 9 of them cannot"),
            (tiny_pretrained(), setting, "no experts"),
            (lm, replace(setting, pool=wrong), "none of the reference questions"),
            (lm, replace(setting, k=12), "are needed"),
        )
    ):
        with pytest.raises(ModelError, match=told):
            text_experiment.measure(model, asked, tmp_path / str(number))
