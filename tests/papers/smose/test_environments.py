from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from mofme.errors import ModelError
from mofme.papers.smose.environments import (
    COLOURS,
    ENVIRONMENTS,
    HEIGHT,
    WIDTH,
    Part,
    draw,
    film,
    make,
    parts_of,
    spaces,
)
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


def painted(picture: np.ndarray, colour: str) -> np.ndarray:
    """Where a picture has a colour: rows and columns."""
    return np.argwhere((picture == [int(colour[n : n + 2], 16) for n in (1, 3, 5)]).all(axis=-1))


def rod(x: float, z: float, target: bool = False) -> Part:
    return Part(np.array([x - 0.5, 0, z]), np.array([x + 0.5, 0, z]), 0.1, target)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_robot_is_in_its_picture(name: str) -> None:
    world = make(name)
    world.reset(seed=0)
    parts: Sequence[Part] = parts_of(world)
    places = painted(draw(name, parts, COLOURS[0]), COLOURS[0])
    assert 500 < len(places) < 20_000
    assert any(part.target for part in parts) == (name == "Reacher")


def test_a_rod_is_as_long_and_thick_as_it_should_be() -> None:
    # 480 pixels for 3.6 metres: a rod of 1 metre and a radius of 10 centimetres is 133 + 27 pixels long and 27 thick;
    # .85 metres above the ground is the middle of the picture's height.
    places = painted(draw("Hopper", [rod(7, 0.85)], COLOURS[1]), COLOURS[1])
    (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0)
    assert right - left + 1 == pytest.approx(160, abs=3)
    assert bottom - top + 1 == pytest.approx(27, abs=3)
    assert (top + bottom) / 2 == pytest.approx(HEIGHT / 2, abs=1.5)
    assert (left + right) / 2 == pytest.approx(WIDTH / 2, abs=1.5)


def test_the_ground_passes_below_a_robot_that_moves() -> None:
    here, there = (draw("Hopper", [rod(x, 0.85)], COLOURS[0]) for x in (0.0, 0.3))
    assert (here[:200] == there[:200]).all()
    assert (here[250:] != there[250:]).any()


def test_a_film_lasts_as_long_as_the_episode(tmp_path: Path) -> None:
    told: list[int] = []
    episode = film(
        lambda x_D: (np.zeros(2), int(x_D[0] > 0)), "Reacher", tmp_path / "a.webm", report=lambda n, _: told.append(n)
    )
    assert episode.lengths == (50,) and told == list(range(1, 51))
    assert set(episode.expert_T.tolist()) <= {0, 1}
    read = cv2.VideoCapture(str(tmp_path / "a.webm"))
    frames = 0
    while read.read()[0]:
        frames += 1
    # 50 steps of .02 seconds, every second one shown.
    assert (frames, round(read.get(cv2.CAP_PROP_FPS))) == (25, 25)
