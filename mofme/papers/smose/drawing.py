"""Films of a robot, drawn from where MuJoCo says its parts are: no graphics card, driver or display needed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mofme.papers.smose.environments import Act, FloatArray, make

# One for each expert, told apart by people who see colours differently too (Okabe and Ito), then lighter ones.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c00", "#7f7f7f")
WIDTH, HEIGHT = 480, 320
_FRAMES_A_SECOND = 25
_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_SKY, _GROUND, _MARK, _TARGET = "#f4f6f8", "#c9d1d9", "#9aa5b1", "#c0392b"
_CAPSULE, _CYLINDER, _SPHERE = 3, 5, 2
# The axes of the world that go right and up in the picture, metres across it, and where its middle is in height.
_VIEWS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float, float]] = {
    "Walker2d": ((1, 0, 0), (0, 0, 1), 3.6, 0.85),
    "Hopper": ((1, 0, 0), (0, 0, 1), 3.6, 0.85),
    "HalfCheetah": ((1, 0, 0), (0, 0, 1), 3.6, 0.6),
    "Ant": ((0.94, -0.34, 0), (0.17, 0.47, 0.87), 5.0, 0.6),
    "Reacher": ((1, 0, 0), (0, 1, 0), 0.62, 0.0),
    "Swimmer": ((1, 0, 0), (0, 1, 0), 4.5, 0.0),
}
_FROM_THE_SIDE = ("Walker2d", "Hopper", "HalfCheetah")


@dataclass(frozen=True)
class Episode:
    """Which expert acted at each step, what each step earned, and the seconds that a step takes the robot."""

    experts: tuple[int, ...]
    rewards: tuple[float, ...]
    seconds_a_step: float


def film(
    act: Act,
    environment: str,
    path: Path,
    seed: int = 0,
    steps: int = 300,
    report: Callable[[int, int], None] | None = None,
) -> Episode:
    """Let `act` drive for at most `steps`, and write a WebM film (480 x 320, VP8) in the robot's own time to `path`."""
    world = make(environment)
    x_D, _ = world.reset(seed=seed)
    seconds = float(world.unwrapped.dt)
    every = max(1, round(1 / _FRAMES_A_SECOND / seconds))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"VP80"), 1 / (seconds * every), (WIDTH, HEIGHT))
    experts: list[int] = []
    rewards: list[float] = []
    over = False
    while not over and len(experts) < steps:
        action_A, expert = act(x_D)
        if len(experts) % every == 0:
            frame = draw(environment, parts_of(world), COLOURS[expert % len(COLOURS)])
            writer.write(frame[..., ::-1])
        x_D, reward, ended, cut, _ = world.step(action_A)
        experts.append(expert)
        rewards.append(float(reward))
        over = ended or cut
        if report is not None:
            report(len(experts), steps)
    writer.release()
    world.close()
    return Episode(tuple(experts), tuple(rewards), seconds)


@dataclass(frozen=True)
class Part:
    """A rod with round ends (a ball where both ends are one), in metres; `target` is what a Reacher must touch."""

    begin_3: FloatArray
    end_3: FloatArray
    radius: float
    target: bool


def parts_of(world: Any) -> Sequence[Part]:
    """Where every part of a gymnasium robot is now."""
    model, data = world.unwrapped.model, world.unwrapped.data
    parts = []
    for number in range(model.ngeom):
        kind, size = int(model.geom_type[number]), model.geom_size[number]
        name = model.geom(number).name
        if kind not in (_CAPSULE, _CYLINDER, _SPHERE) or name.startswith(("root", "side")):  # not the walls
            continue
        middle_3 = data.geom_xpos[number].copy()
        half_3 = data.geom_xmat[number].reshape(3, 3)[:, 2] * (0.0 if kind == _SPHERE else size[1])
        parts.append(Part(middle_3 - half_3, middle_3 + half_3, float(size[0]), name == "target"))
    return parts


def draw(environment: str, parts: Sequence[Part], colour: str) -> NDArray[np.uint8]:
    """RGB uint8 (320, 480, 3): the robot in one colour, in the middle, and the ground passing by below it."""
    right_3, up_3, metres, middle = _VIEWS[environment]
    scale = WIDTH / metres
    robot = [part for part in parts if not part.target]
    centre_3 = np.mean([part.begin_3 + part.end_3 for part in robot], axis=0) / 2
    if environment == "Reacher":
        centre_3 = np.zeros(3)  # it stays where it is screwed on
    elif environment in _FROM_THE_SIDE:
        centre_3[2] = middle
    picture = np.full((HEIGHT, WIDTH, 3), _rgb(_SKY), np.uint8)

    def place(point_3: FloatArray) -> tuple[float, float]:
        offset_3 = point_3 - centre_3
        across, above = float(offset_3 @ np.array(right_3)), float(offset_3 @ np.array(up_3))
        return WIDTH / 2 + across * scale, HEIGHT / 2 - above * scale

    _ground(picture, environment, centre_3, place)
    for part in parts:
        paint = _rgb(_TARGET if part.target else colour)
        _rod(picture, place(part.begin_3), place(part.end_3), max(part.radius * scale, 1.5), paint)
    return picture


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _rod(
    picture: NDArray[np.uint8],
    begin: tuple[float, float],
    end: tuple[float, float],
    reach: float,
    paint: tuple[int, int, int],
) -> None:
    (x0, y0), (x1, y1) = begin, end
    length = max(math.hypot(x1 - x0, y1 - y0), 1e-6)
    aside_x, aside_y = reach * (y0 - y1) / length, reach * (x1 - x0) / length
    corners = [
        (x0 + aside_x, y0 + aside_y),
        (x1 + aside_x, y1 + aside_y),
        (x1 - aside_x, y1 - aside_y),
        (x0 - aside_x, y0 - aside_y),
    ]
    cv2.fillConvexPoly(picture, _fine(corners), paint, cv2.LINE_AA, _SHIFT)
    for point in _fine([begin, end]):
        cv2.circle(picture, point.tolist(), round(reach * 2**_SHIFT), paint, -1, cv2.LINE_AA, _SHIFT)


def _fine(points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
    return np.round(np.array(points) * 2**_SHIFT).astype(np.int32)


def _ground(
    picture: NDArray[np.uint8],
    environment: str,
    centre_3: FloatArray,
    place: Callable[[FloatArray], tuple[float, float]],
) -> None:
    """Marks that stand still in the world, a metre apart, so that one sees the robot move."""
    first = np.floor(centre_3[:2]) - 4
    if environment in _FROM_THE_SIDE:
        level = round(place(np.zeros(3))[1])
        picture[level:] = _rgb(_GROUND)
        for step in range(10):
            x = round(place(np.array([first[0] + step, 0.0, 0.0]))[0])
            cv2.line(picture, (x, level), (x, level + 14), _rgb(_MARK), 2)
    elif environment != "Reacher":
        for column in range(10):
            for row in range(10):
                across, above = place(np.array([first[0] + column, first[1] + row, 0.0]))
                cv2.circle(picture, (round(across), round(above)), 2, _rgb(_MARK), -1, cv2.LINE_AA)
