import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mofme.core.weights import ModelCard, save_model
from mofme.errors import ModelError, TableError
from mofme.language.sentence_encoder import Queries, SentenceEncoder
from mofme.language.tables.table import RoutingTable
from mofme.papers.carrot.carrot import LAMBDAS, NET, QUALITY_ESTIMATORS, CarrotRouter
from mofme.papers.carrot.trained_router import TrainedRouter

CARD = ModelCard("tiny", NET, {}, "none", {"table": "made up"})
CHEAP = 1


def made_up(count: int = 80) -> tuple[RoutingTable, Queries]:
    """Sums, which the dear model alone can do, and rhymes, which both can; the dear one costs ten times as much."""
    random = np.random.default_rng(0)
    sums = np.arange(count) % 2 == 0
    prompts = tuple(f"{'sum' if is_sum else 'rhyme'} {row} {'x' * (row % 7)}" for row, is_sum in enumerate(sums))
    points_ND = random.normal(0, 0.1, (count, 8)) + np.eye(8)[sums.astype(int)]
    points_ND /= np.linalg.norm(points_ND, axis=1, keepdims=True)
    quality_NM = np.stack([np.full(count, 0.9), np.where(sums, 0.1, 0.9)], 1)
    cost_NM = np.outer([len(prompt) for prompt in prompts], [1e-4, 1e-5])
    tasks = tuple("sums" if is_sum else "rhymes" for is_sum in sums)
    return RoutingTable("made up", prompts, ("dear", "cheap"), quality_NM, cost_NM, tasks), Queries(prompts, points_ND)


@cache
def fitted(estimator: str = "ensemble") -> CarrotRouter:
    router = CarrotRouter(estimator)
    router.fit(*made_up())
    return router


@pytest.mark.parametrize("estimator", QUALITY_ESTIMATORS)
def test_it_pays_where_only_the_dear_model_can_and_comes_back_bit_by_bit(estimator: str, tmp_path: Path) -> None:
    _, queries = made_up()
    router = fitted(estimator)
    choices_SN = router.sweep(queries)
    assert choices_SN.shape == (len(LAMBDAS), 80)
    assert (choices_SN[-1] == CHEAP).all()  # lambda 1: cost alone
    if estimator != "network":  # which 80 prompts are too few for
        middle = choices_SN[np.abs(LAMBDAS - 0.3).argmin()]
        np.testing.assert_array_equal(middle, np.arange(80) % 2)  # sums to the dear one, which is number 0
    card = router.save(tmp_path / "one", CARD)
    loaded = CarrotRouter.load(tmp_path / "one")
    before, after = router.estimate(queries), loaded.estimate(queries)
    np.testing.assert_array_equal(before.quality_NM, after.quality_NM)
    np.testing.assert_array_equal(before.cost_NM, after.cost_NM)
    assert (loaded.models, loaded.name, loaded.scale) == (router.models, router.name, router.scale)
    assert loaded.save(tmp_path / "two", CARD) == card
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_costs_are_those_of_the_prompts_length() -> None:
    table, queries = made_up()
    np.testing.assert_allclose(fitted().estimate(queries).cost_NM, table.cost_NM, rtol=0.02)
    longer = Queries(["sum " + "x" * 96], queries.embeddings_ND[:1])
    np.testing.assert_allclose(fitted().estimate(longer).cost_NM, [[1e-2, 1e-3]], rtol=0.02)
    shortest = Queries([""], queries.embeddings_ND[:1])
    assert (fitted().estimate(shortest).cost_NM >= table.cost_NM.min(0) - 1e-12).all()


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no estimator is called 'magic'"):
        CarrotRouter("magic")
    table, queries = made_up()
    with pytest.raises(TableError, match="5 prompts"):
        CarrotRouter("knn").fit(table.rows(range(5)), queries.rows(range(5)))
    save_model(tmp_path, CARD, {})
    with pytest.raises(ModelError, match="does not hold what its card says"):
        CarrotRouter.load(tmp_path)


class _Encoder(SentenceEncoder):
    """Knows sums from rhymes."""

    def queries(self, prompts: list[str]) -> Queries:  # type: ignore[override]
        return Queries(prompts, np.eye(8)[[int(prompt.startswith("sum")) for prompt in prompts]])


ENCODER = _Encoder(remember=False)


@pytest.mark.parametrize(
    ("prompt", "dial", "model"),
    [
        ("sum 1234567", {}, "dear"),
        ("sum 1234567", {"cost_weight": 0.3}, "dear"),
        ("sum 1234567", {"cost_weight": 1.0}, "cheap"),
        ("rhyme 12345", {"cost_weight": 0.3}, "cheap"),
        ("sum 1234567", {"budget": 0.0005}, "cheap"),  # the dear one costs .0011, the cheap one .00011
        ("sum 1234567", {"budget": 0.005}, "dear"),
        ("sum 1234567", {"budget": 0.0}, "cheap"),
        ("sum 1234567", {"quality": 0.8}, "dear"),
        ("rhyme 12345", {"quality": 0.8}, "cheap"),
        ("sum 1234567", {"quality": 0.0}, "cheap"),
    ],
)
def test_the_dials(prompt: str, dial: dict[str, float], model: str) -> None:
    routed = TrainedRouter(fitted(), ENCODER).route(prompt, **dial)
    assert routed.model == model and routed.quality_M.shape == routed.cost_M.shape == (2,)


@pytest.mark.parametrize(
    "dial", [{"cost_weight": 1.5}, {"quality": -0.1}, {"budget": -1.0}, {"budget": 1.0, "quality": 0.5}]
)
def test_a_dial_out_of_range(dial: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"has to be|give one of"):
        TrainedRouter(fitted(), ENCODER).route("sum 1", **dial)


def test_the_neighbours_are_of_the_same_task(tmp_path: Path) -> None:
    neighbours = TrainedRouter(fitted(), ENCODER).route("sum 1").neighbours
    assert [near.task for near in neighbours] == ["sums"] * 5
    assert {near.solved_by for near in neighbours} == {("dear",)}
    assert all(near.prompt.startswith("sum") for near in neighbours)
    assert sorted((near.similarity for near in neighbours), reverse=True) == [near.similarity for near in neighbours]
    fitted().save(tmp_path, CARD)
    loaded = TrainedRouter(CarrotRouter.load(tmp_path), ENCODER).route("sum 1")
    assert [(near.task, near.prompt) for near in loaded.neighbours] == [("sums", "")] * 5


def test_the_shipped_router() -> None:
    shipped = TrainedRouter.from_pretrained("router")
    routed = shipped.route("Write a Python function that returns the n-th prime number.", cost_weight=0.2)
    assert routed.model in shipped.models and len(shipped.models) == 9
    assert ((routed.quality_M > 0) & (routed.quality_M < 1)).all() and (routed.cost_M > 0).all()
    assert {near.task for near in routed.neighbours} <= {"mbpp", "human_eval"}
    plain = json.loads(json.dumps(routed.as_json()))
    assert plain["model"] == routed.model and plain["models"].keys() == set(shipped.models)
    with pytest.raises(ModelError, match=r"no router is called 'nothing': shipped are .*router"):
        TrainedRouter.from_pretrained("nothing")
    with pytest.raises(ModelError, match="another kind: restoration"):
        TrainedRouter.from_pretrained("small")
