from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from mofme.papers.smose.environments import TEST_SEED, Evaluation, drive, spaces, visit
from mofme.papers.smose.policy import SparseLinearPolicy, acting, evaluate
from mofme.papers.smose.trees import (
    DistilledTree,
    describe,
    distil,
    expert_tables,
    mean_weights,
    tree_acting,
    tree_svg,
    what_depends_on_it,
)

SVG = "{http://www.w3.org/2000/svg}"


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


def words_of(chosen: Sequence[int]) -> list[str]:
    """What stands in the picture of a tree on states that stand at 0, 1, 2, ... of one observation."""
    tree = DecisionTreeClassifier(random_state=0).fit(np.arange(len(chosen))[:, None], chosen)
    picture = ElementTree.fromstring(tree_svg(tree, ["height <of> the torso"]))
    return ["".join(element.itertext()) for element in picture.iter(f"{SVG}text")]


def test_the_picture_holds_every_comparison_and_every_expert_with_its_share() -> None:
    words = words_of([0, 1, 2, 3, 3, 4])
    assert sorted(word for word in words if word.startswith("expert")) == [
        *(f"expert {expert}, 16.7%" for expert in (0, 1, 2)),
        "expert 3, 33.3%",
        "expert 4, 16.7%",
    ]
    # Experts change at these places: half way between two states.
    assert sorted(word for word in words if word.startswith("height")) == [
        f"height <of> the torso <= {place}" for place in (0.5, 1.5, 2.5, 4.5)
    ]


@pytest.mark.parametrize("chosen", [[7], [7, 7, 7]])
def test_a_tree_that_asks_nothing_is_one_leaf(chosen: Sequence[int]) -> None:
    assert words_of(chosen) == ["expert 7, 100.0%"]


def test_a_deep_tree_is_told_to_its_leaves() -> None:
    generator = np.random.default_rng(0)
    x = generator.random((6000, len(spaces("Hopper").observations)))
    tree = DecisionTreeClassifier(max_depth=12, random_state=0).fit(x, generator.integers(2, size=6000))
    assert tree.get_depth() == 12
    told = DistilledTree(tree, np.ones(2), 12, 1.0, Evaluation((0.0,), (1,), (1.0, 0.0)))
    assert "truncated" not in told.text("Hopper")
