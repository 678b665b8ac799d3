from pathlib import Path

import numpy as np
import pytest
import torch

from mofme.core.moe import observe_routing
from mofme.core.routing import RoutingDecision
from mofme.core.training import StepReport
from mofme.errors import TableError
from mofme.language.minilm import MiniLM, read_tokens
from mofme.language.sentence_encoder import Queries, SentenceEncoder
from mofme.papers.mixture_of_routers.lora import LAST, MIXTURE, SINGLE, WINDOW, Recipe
from mofme.papers.mixture_of_routers.training import (
    Examples,
    Plan,
    PreparedTask,
    Task,
    fit_head,
    make_task,
    measure,
    own_task,
    prepare,
    read_task,
    train,
)

ANIMALS = ["a cat sat", "the dog barks loudly", "two horses run", "a bird sings", "fish swim", "the cow eats grass"]
NUMBERS = [
    "one plus two",
    "seven times three is twenty one",
    "divide by four",
    "the square root",
    "a sum",
    "half of ten",
]


EXAMPLES = Examples(tuple(ANIMALS + NUMBERS), np.repeat([0, 1], 6))
TASK = Task("animals or numbers", ("animal", "number"), EXAMPLES, EXAMPLES, EXAMPLES)


@pytest.fixture(scope="module")
def prepared() -> PreparedTask:
    return prepare(TASK, first=11)


def test_batches_are_the_texts_as_the_encoder_sees_them(prepared: PreparedTask) -> None:
    texts = prepared.training
    x_BTD, seen_BT, label_B = texts.batch(np.array([7, 0]))
    assert seen_BT.sum(1).tolist() == texts.length_N[[7, 0]].tolist()
    assert label_B.tolist() == [1, 0]
    encoder = MiniLM.pretrained()
    alone_BTD, all_BT = encoder.embed([read_tokens(NUMBERS[1], WINDOW)[0]])
    torch.testing.assert_close(x_BTD[:1, : all_BT.sum()], encoder.run(alone_BTD, all_BT, stop=11), rtol=1e-4, atol=1e-4)


def test_a_head_is_the_logistic_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(0)
    x_ND, label_N = generator.normal(size=(60, 5)), generator.integers(3, size=60)
    # Its C multiplies the sum of losses: the mean with half of .1 times the squares is C = 1 / (.1 * 60).
    expected = LogisticRegression(C=1 / (0.1 * 60), tol=1e-8, max_iter=1000).fit(x_ND, label_N)
    head = fit_head(torch.from_numpy(x_ND).float(), label_N, 3)
    ours = head(torch.from_numpy(x_ND).float()).softmax(-1).numpy()
    np.testing.assert_allclose(ours, expected.predict_proba(x_ND), atol=2e-3)


def test_before_the_first_step_it_is_the_encoder_with_that_head(prepared: PreparedTask) -> None:
    untrained = train(Plan(prepared, Recipe(LAST), steps=0))
    assert measure(untrained, prepared.test).right_N.tolist() == prepared.right_without_banks(prepared.test).tolist()


def test_it_learns(prepared: PreparedTask) -> None:
    seen: list[StepReport] = []
    classifier = train(Plan(prepared, Recipe(LAST), steps=12, batch=8, learning_rate=3e-3), seen.append)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert seen[-1].loss < seen[0].loss / 2
    assert measure(classifier, prepared.test).right_N.all()


def test_the_load_counts_tokens_and_no_padding(prepared: PreparedTask, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of each text's tokens the two experts 0 and 1 of 4 get all: counts n, n, 0, 0 have mean n / 2, deviation n / 2.
    classifier = train(Plan(prepared, Recipe(LAST, SINGLE, experts=4), steps=0))
    for bank in classifier.banks.values():
        router = bank.mixture.router

        def decide(x_TD: torch.Tensor) -> RoutingDecision:
            weights_TE = torch.zeros(len(x_TD), 4)
            weights_TE[:, :2] = 0.5
            # What comes of padding is all alike, as its hidden state is; it is given to the others.
            weights_TE[(x_TD == 0).all(1)] = torch.tensor([0, 0, 0.5, 0.5])
            return RoutingDecision(weights_TE, weights_TE)

        monkeypatch.setattr(router, "forward", decide)
    with observe_routing(classifier) as observed:
        assert measure(classifier, prepared.test).load == pytest.approx(1)
    assert any(one.decision.weights_TE[:, 2].any() for one in observed)


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
    assert task.labels == ("even", "odd")
    for part in (task.training, task.validation, task.test):
        assert [int(text[:3]) % 2 for text in part.texts] == part.label_N.tolist()
    parts = parts_of(task)
    assert sorted(text for part in parts for text in part) == TEXTS
    assert [len(part) for part in parts] == [60, 20, 20]
    drawn, again = (parts_of(make_task("numbers", TEXTS, LABELS, Letters(), limit=60)) for _ in range(2))
    assert drawn == again and sum(map(len, drawn)) == 60
    groups = [{text[:3] for text in part} for part in parts]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]


def test_a_file_of_texts_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "".join(f"{t},{c}\n" for t, c in zip(TEXTS, LABELS, strict=True)))
    task = read_task(path, Letters())
    assert (task.name, task.labels) == ("mine", ("even", "odd"))
    assert parts_of(task) == parts_of(make_task("x", TEXTS, LABELS, Letters()))


def test_a_file_as_excel_saves_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    rows = "".join(f'"{t}"\t{c}\t\r\n' for t, c in zip(TEXTS, LABELS, strict=True))
    path.write_bytes(f"Text\tLabel\t\r\n{rows}\t\t\r\n".encode("utf-16"))
    assert parts_of(read_task(path, Letters())) == parts_of(make_task("x", TEXTS, LABELS, Letters()))
    path.write_bytes(f"Text\tLabel\r\n{rows}left without\r\n".encode("cp1252"))
    with pytest.raises(TableError, match=f"has 1 texts without a label, the first in row {len(TEXTS) + 1}"):
        read_task(path, Letters())
    path.write_text("sentence,class\none,1\n")
    with pytest.raises(TableError, match=r"has no columns text and label, .* it has the columns sentence, class"):
        read_task(path, Letters())


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


def weights_after(plan: Plan) -> dict[str, torch.Tensor]:
    classifier = train(plan)
    return {name: p.detach() for name, p in classifier.named_parameters() if p.requires_grad}


def test_the_same_plan_gives_the_same_weights(prepared: PreparedTask) -> None:
    plan = Plan(prepared, Recipe(LAST), steps=3, batch=4, seed=1)
    ours = weights_after(plan)
    torch.manual_seed(99)
    again = weights_after(plan)
    assert all(torch.equal(ours[name], again[name]) for name in ours)


def test_arms_are_paired(prepared: PreparedTask) -> None:
    # With all experts chosen and all at zero, one step of the head and of B sees none of the routers' weights.
    first, other = (
        weights_after(Plan(prepared, Recipe(LAST, router, 2, experts=1, top_k=1), steps=2, batch=4))
        for router in (SINGLE, MIXTURE)
    )
    shared = [name for name in first if ".router." not in name]
    assert shared and all(torch.allclose(first[name], other[name], atol=1e-6) for name in shared)
