import pytest

from mofme.errors import ModelError
from mofme.papers.smose.environments import ENVIRONMENTS, make, spaces
from mofme.papers.smose.policy import SparseLinearPolicy, evaluate


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_number_of_a_robot_has_a_name(name: str) -> None:
    world, names = make(name), spaces(name)
    assert world.observation_space.shape == (len(set(names.observations)),)
    assert world.action_space.shape == (len(set(names.actions)),)


def test_an_unknown_robot_is_named_with_those_that_exist() -> None:
    with pytest.raises(ModelError, match=r"'Humanoid'.*Walker2d, Hopper"):
        make("Humanoid")


def test_an_episode_is_played_alike_from_the_same_seed(policy: SparseLinearPolicy) -> None:
    one, other = (evaluate(policy, "Reacher", episodes=2, seed=5) for _ in range(2))
    assert one == other
    assert one.lengths == (50, 50)
    assert sum(one.shares_E) == pytest.approx(1)
