import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier
from typer.testing import CliRunner

from mofme.cli import app
from mofme.control import training
from mofme.control.comparison import as_result, measure
from mofme.control.environments import ENVIRONMENTS, make, spaces
from mofme.control.evaluation import TEST_SEED, Evaluation, acting, drive, evaluate
from mofme.control.explanation import describe, expert_tables, visit
from mofme.control.policy import SparseLinearPolicy
from mofme.control.storage import load_policy, save_policy
from mofme.control.training import ControlPlan, ControlProgress, train
from mofme.control.trees import distil, mean_weights, tree_acting, what_depends_on_it
from mofme.core.weights import load_card
from mofme.errors import ModelError


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning begins after a few steps."""
    monkeypatch.setattr(training, "_RANDOM_STEPS", 40)


@pytest.fixture
def policy() -> SparseLinearPolicy:
    torch.manual_seed(0)
    names = spaces("Reacher")
    made = SparseLinearPolicy(
        len(names.observations), torch.tensor(names.low_A), torch.tensor(names.high_A), num_experts=4
    )
    return made


def plan(out: Path, steps: int, seed: int = 0) -> ControlPlan:
    return ControlPlan("Reacher", out, steps, seed, experts=4, check_steps=30, check_episodes=1)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_number_of_a_robot_has_a_name(name: str) -> None:
    world, names = make(name), spaces(name)
    assert world.observation_space.shape == (len(set(names.observations)),)
    assert world.action_space.shape == (len(set(names.actions)),)


def test_an_unknown_robot_is_named_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match=r"'Humanoid'.*Walker2d, Hopper"):
        make("Humanoid")


def test_training_is_resumed_and_saved(tmp_path: Path) -> None:
    seen: list[ControlProgress] = []
    first = train(plan(tmp_path, 60), seen.append)
    assert [progress.step for progress in seen] == [30, 60]
    resumed = train(plan(tmp_path, 90), seen.append)
    assert [progress.step for progress in seen] == [30, 60, 90]
    assert not torch.equal(first.experts_EFD, resumed.experts_EFD)
    assert [json.loads(line)["step"] for line in (tmp_path / "curve.jsonl").read_text().splitlines()] == [30, 60, 90]
    assert load_policy(tmp_path)[1] == "Reacher"


def test_the_policy_of_the_best_check_is_kept_over_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    returns = iter([1.0, 3.0, 2.0, 3.5])
    monkeypatch.setattr(training, "evaluate", lambda *_, **__: Evaluation((next(returns),), (50,), (1.0,)))

    def kept_after(steps: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        last = train(plan(tmp_path, steps))
        return last.experts_EFD, load_policy(tmp_path)[0].experts_EFD, load_card(tmp_path).training["steps"]

    best, kept, steps = kept_after(60)
    torch.testing.assert_close(kept, best, atol=1e-3, rtol=1e-3)  # half precision
    assert steps == 60
    _, still_kept, steps = kept_after(90)
    assert torch.equal(still_kept, kept) and steps == 60
    best, kept, steps = kept_after(120)
    torch.testing.assert_close(kept, best, atol=1e-3, rtol=1e-3)
    assert steps == 120


def test_nothing_is_lost_between_two_runs(tmp_path: Path) -> None:
    train(plan(tmp_path, 60))
    learner = training.fresh_learner(plan(tmp_path, 60))
    memory = training.Replay(60, 11, 2)
    assert training._resume(tmp_path, learner, memory) == 60
    saved = training.load_file(tmp_path / "state.safetensors")
    assert {key: value.tolist() for key, value in training._state(learner, 60).items()} == {
        key: value.tolist() for key, value in saved.items()
    }
    assert len(memory) == 60


def test_another_plan_does_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    train(plan(tmp_path, 30))
    with pytest.raises(ModelError, match="another seed: take another folder"):
        train(plan(tmp_path, 60, seed=1))


def test_training_stops_when_told(tmp_path: Path) -> None:
    seen: list[ControlProgress] = []
    train(plan(tmp_path, 90), seen.append, stopped=lambda: len(seen) == 1)
    assert [progress.step for progress in seen] == [30]


def test_an_episode_is_played_alike_from_the_same_seed(policy: SparseLinearPolicy) -> None:
    one, other = (evaluate(policy, "Reacher", episodes=2, seed=5) for _ in range(2))
    assert one == other
    assert one.lengths == (50, 50)
    assert sum(one.shares_E) == pytest.approx(1)


def test_the_tables_say_what_an_expert_does(policy: SparseLinearPolicy) -> None:
    visited = visit(acting(policy), "Reacher", episodes=2, seed=0)
    assert visited.x_TD.shape == (100, 11)
    assert visited.returns == evaluate(policy, "Reacher", episodes=2, seed=0).returns
    assert len(visit(acting(policy), "Reacher", episodes=1, seed=0, at_least=51).returns) == 2
    tables = expert_tables(policy, visited)
    assert sum(table.share for table in tables if table) == pytest.approx(1)
    table = next(table for table in tables if table)
    expert = tables.index(table)
    # In the middle of its region it does what the policy does there.
    middle_D = visited.x_TD[visited.expert_T == expert].mean(axis=0)
    if policy.route(torch.from_numpy(middle_D).float()[None]).logits_TE.argmax() == expert:
        np.testing.assert_allclose(
            table.rest_A, policy(torch.from_numpy(middle_D).float()[None])[0].detach(), atol=1e-5
        )
    names = spaces("Reacher")
    strongest = table.strongest(names, most=3)
    assert abs(strongest[0][2]) == pytest.approx(np.abs(table.effect_AD).max())
    assert f"Expert {expert}" in describe(policy, "Reacher", episodes=1)


def test_a_tree_that_knows_all_answers_chooses_as_the_policy(policy: SparseLinearPolicy) -> None:
    visited = visit(acting(policy), "Reacher", episodes=1, seed=0)
    tree = DecisionTreeClassifier().fit(visited.x_TD, visited.expert_T)
    weight_E = np.linspace(0.2, 0.8, 4)
    act = tree_acting(tree, weight_E, policy)
    means_EFD = policy.experts_EFD.detach().double().numpy()[:, :2]
    for x_D, chosen in zip(visited.x_TD, visited.expert_T, strict=True):
        action_A, expert = act(x_D)
        assert expert == chosen
        # Reacher's actions lie between -1 and 1, so nothing is left but the squashing.
        expected_A = np.tanh(weight_E[chosen] * means_EFD[chosen] @ np.append(x_D, 1))
        np.testing.assert_allclose(action_A, expected_A, atol=1e-9)


def test_an_experts_weight_is_its_mean_probability_where_it_is_chosen() -> None:
    # Logits (0, x): expert 0 is chosen below zero, with probability 1 / (1 + e^x).
    policy = SparseLinearPolicy(1, torch.tensor([-1.0]), torch.tensor([1.0]), 3)
    with torch.no_grad():
        policy.router_ED.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -50.0]]))
    x_TD = np.log(np.array([[1 / 4], [2 / 3], [9.0]]))
    # 1 / (1 + 1/4) = .8 and 1 / (1 + 2/3) = .6; 9 / (1 + 9) = .9; the third is never chosen.
    np.testing.assert_allclose(mean_weights(policy, x_TD), [0.7, 0.9, 0], atol=1e-6)


def test_a_state_weighs_as_much_as_the_choice_changes_there() -> None:
    # One observation, one action in [-1, 1], two experts: 0.5 * (2 x + 1), always chosen, and 0.25 * (-x).
    policy = SparseLinearPolicy(1, torch.tensor([-1.0]), torch.tensor([1.0]), 2)
    with torch.no_grad():
        policy.router_ED.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        policy.experts_EFD.zero_()
        policy.experts_EFD[:, 0] = torch.tensor([[2.0, 1.0], [-1.0, 0.0]])
    expected = [(np.tanh(0.5 * (2 * x + 1)) - np.tanh(-0.25 * x)) ** 2 for x in (0.0, 1.0)]
    np.testing.assert_allclose(
        what_depends_on_it(policy, np.array([[0.0], [1.0]]), np.array([0.5, 0.25])), expected, atol=1e-5
    )


def test_a_distilled_tree_keeps_to_its_depth_and_is_compared_with_the_router(policy: SparseLinearPolicy) -> None:
    found = distil(policy, "Reacher", depth=3, episodes=2)
    assert found.tree.get_depth() <= 3
    driven = visit(tree_acting(found.tree, found.weight_E, policy), "Reacher", 4, TEST_SEED)
    logits_TE = np.c_[driven.x_TD, np.ones(200)] @ policy.router_ED.detach().double().numpy().T
    assert found.fidelity == pytest.approx((found.tree.predict(driven.x_TD) == logits_TE.argmax(axis=1)).mean())
    # On the test's episodes, as the policy itself is measured.
    act = tree_acting(found.tree, found.weight_E, policy)
    assert found.evaluation == drive(act, "Reacher", policy.num_experts, 2, TEST_SEED)
    assert "expert" in found.text("Reacher") and "elbow speed" in found.text("Reacher")
    assert f"expert 1 {found.weight_E[1]:.2f}" in found.text("Reacher").splitlines()[-1]


def test_policies_are_measured_beside_the_paper(tmp_path: Path, policy: SparseLinearPolicy) -> None:
    for seed in range(2):
        save_policy(tmp_path / f"{seed}", policy, "Reacher", {"seed": seed, "steps": 1000 + seed}, {})
    result = as_result(measure(tmp_path, episodes=2, trees=False), "a command")
    (row,) = result.rows
    assert row.figures["seeds"].value == 2 and row.figures["steps"].value == 1001
    # The paper's -5.49 over a loss of so much.
    assert row.figures["reached, %"].value == pytest.approx(100 * 5.49 / -row.figures["return"].value)
    with pytest.raises(ModelError, match="holds no policy"):
        measure(tmp_path / "nothing")


def test_the_command_line_trains_measures_and_explains(tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "runs" / "a")
    assert run(app, ["control", "train", "Reacher", "--out", out, "--steps", "60", "--experts", "3"]).exit_code == 0
    measured = run(
        app, ["control", "evaluate", str(tmp_path / "runs"), "--episodes", "1", "--no-trees", "--out", str(tmp_path)]
    )
    assert measured.exit_code == 0, measured.output
    assert json.loads((tmp_path / "control.json").read_text())["room"] == "control"
    told = run(app, ["control", "explain", out, "--depth", "2", "--picture", str(tmp_path / "tree.svg")])
    assert told.exit_code == 0 and "A tree of depth 2" in told.output
    assert ElementTree.parse(tmp_path / "tree.svg").getroot().tag.endswith("svg")
    assert run(app, ["control", "train", "Moon", "--out", out]).exit_code == 2
