"""MuJoCo's six robots as the paper uses them (gymnasium, version 4): what their numbers are called, driving them, and
films, drawn from where MuJoCo says their parts are: no graphics card, driver or display needed.

Axis names: T steps, D observations, A actions, E experts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mofme.errors import ModelError
from mofme.papers.smose import PUBLISHED

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
# An observation (D,) -> an action (A,) and the number of the expert that chose it.
Act = Callable[[np.ndarray], tuple[np.ndarray, int]]

ENVIRONMENTS = tuple(PUBLISHED)
# Where the episodes begin that neither training nor trees have seen: what is compared is compared on the same ones.
TEST_SEED = 50_000
_INSTALL = "type: pip install gymnasium==1.4.0 mujoco==4.0.0 imageio==2.38.1"
# Positions that an environment leaves out of its observation: where the robot stands must not matter.
_HIDDEN_POSITIONS = {"Ant": 2, "Swimmer": 2, "Walker2d": 1, "Hopper": 1, "HalfCheetah": 1}
_FREE_POSITIONS = ("x", "y", "z", "orientation w", "orientation x", "orientation y", "orientation z")
_FREE_SPEEDS = ("x speed", "y speed", "z speed", "x turn", "y turn", "z turn")


@dataclass(frozen=True)
class Spaces:
    """Names of the D observations and the A actions, and the actions' range, (A,) each."""

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    low_A: tuple[float, ...]
    high_A: tuple[float, ...]


def make(name: str) -> Any:
    """A gymnasium environment.

    Raises ModelError for an unknown name, and with what to type where gymnasium or MuJoCo is missing.
    """
    if name not in ENVIRONMENTS:
        raise ModelError(f"no environment is called {name!r}: choose from {', '.join(ENVIRONMENTS)}")
    try:
        import gymnasium
        import mujoco

        # It would say at every call that there is a version 5; the paper's figures are of version 4.
        gymnasium.logger.min_level = gymnasium.logger.ERROR
        # MuJoCo finds a word in a robot's file old-fashioned, and would say so in a file where the user stands.
        mujoco.set_mju_user_warning(lambda _: None)
        try:
            return gymnasium.make(f"{name}-v4")
        finally:
            mujoco.set_mju_user_warning(None)
    except ImportError as error:
        raise ModelError(f"robots need gymnasium and MuJoCo ({error}); {_INSTALL}") from error


@cache
def spaces(name: str) -> Spaces:
    """What the numbers of an environment mean, from its MuJoCo model."""
    environment = make(name)
    model, space = environment.unwrapped.model, environment.action_space
    observations = _REACHER if name == "Reacher" else _joints(model)[_HIDDEN_POSITIONS[name] :]
    # A motor is called after the joint that it turns.
    actions = tuple(_plain(model.joint(int(joint)).name) for joint in model.actuator_trnid[:, 0])
    environment.close()
    return Spaces(tuple(observations), actions, tuple(map(float, space.low)), tuple(map(float, space.high)))


@dataclass(frozen=True)
class Visited:
    """What a policy saw in some episodes (T, D), which expert answered (T,), each episode's return and length, and the
    seconds that a step takes the robot."""

    x_TD: FloatArray
    expert_T: IntArray
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    seconds_a_step: float


@dataclass(frozen=True)
class Evaluation:
    """Returns of the episodes, their lengths, and each expert's share (E,) of all steps."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    shares_E: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean return of an episode."""
        return float(np.mean(self.returns))


def visit(
    act: Act,
    environment: str,
    episodes: int,
    seed: int,
    at_least: int = 0,
    most: float = math.inf,
    watch: Callable[[Any, int, int], None] = lambda *_: None,
) -> Visited:
    """Let a function of the observation act, and remember what it saw: more episodes if they hold too few steps.

    Episodes begin where `seed`, `seed` + 1, ... say, and end after `most` steps; before each step `watch` is told the
    gymnasium environment, the number of the step and the expert.
    """
    world = make(environment)
    seen: list[FloatArray] = []
    experts: list[int] = []
    returns: list[float] = []
    lengths: list[int] = []
    while len(returns) < episodes or len(seen) < at_least:
        x_D, _ = world.reset(seed=seed + len(returns))
        earned, over, before = 0.0, False, len(seen)
        while not over:
            action_A, expert = act(x_D)
            watch(world, len(seen) - before, expert)
            seen.append(np.asarray(x_D, np.float64))
            experts.append(expert)
            x_D, reward, ended, cut, _ = world.step(action_A)
            earned, over = earned + float(reward), ended or cut or len(seen) - before >= most
        returns.append(earned)
        lengths.append(len(seen) - before)
    seconds = float(world.unwrapped.dt)
    world.close()
    return Visited(np.stack(seen), np.asarray(experts, np.int64), tuple(returns), tuple(lengths), seconds)


def drive(act: Act, environment: str, experts: int, episodes: int, seed: int) -> Evaluation:
    """What any function of the observation earns with so many experts to choose from."""
    driven = visit(act, environment, episodes, seed)
    shares_E = np.bincount(driven.expert_T, minlength=experts) / len(driven.expert_T)
    return Evaluation(driven.returns, driven.lengths, tuple(shares_E.tolist()))


_REACHER = (
    *("cosine of the shoulder", "cosine of the elbow", "sine of the shoulder", "sine of the elbow"),
    *("target x", "target y", "shoulder speed", "elbow speed"),
    *("finger minus target x", "finger minus target y", "finger minus target z"),
)
# MuJoCo's names in plain words.
_ENDS = {"b": "back", "f": "front"}
_PLAIN = {
    "rootx": "forward",
    "rootz": "height",
    "rooty": "tilt",
    "root": "torso",
    "slider1": "forward",
    "slider2": "sideways",
    "free_body_rot": "heading",
    "motor1_rot": "first joint",
    "motor2_rot": "second joint",
    "joint0": "shoulder",
    "joint1": "elbow",
    **{f"{end}{part}": f"{word} {part}" for end, word in _ENDS.items() for part in ("thigh", "shin", "foot")},
}


def _plain(name: str) -> str:
    return _PLAIN.get(name, name.replace("_joint", "").replace("_", " "))


def _joints(model: Any) -> Sequence[str]:
    """All positions, then all speeds."""
    positions: list[str] = []
    speeds: list[str] = []
    for number in range(model.njnt):
        name = _plain(model.joint(number).name)
        is_free = int(model.jnt_type[number]) == 0
        positions += [f"{name} {axis}" for axis in _FREE_POSITIONS] if is_free else [name]
        speeds += [f"{name} {axis}" for axis in _FREE_SPEEDS] if is_free else [f"{name} speed"]
    return positions + speeds


# One for each expert, told apart by people who see colours differently too (Okabe and Ito), then lighter ones.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c00", "#7f7f7f")
WIDTH, HEIGHT = 480, 320
_FRAMES_A_SECOND = 25
_FILMED = 300  # steps
_SHIFT = 4  # OpenCV draws at sixteenths of a pixel
_SKY, _GROUND, _MARK, _TARGET = "#f4f6f8", "#c9d1d9", "#9aa5b1", "#c0392b"
_CAPSULE, _CYLINDER, _SPHERE = 3, 5, 2
# The axes of the world that go right and up in the picture, metres across it, and where its middle is in height.
_VIEWS = {
    "Walker2d": ((1.0, 0, 0), (0.0, 0, 1), 3.6, 0.85),
    "Hopper": ((1.0, 0, 0), (0.0, 0, 1), 3.6, 0.85),
    "HalfCheetah": ((1.0, 0, 0), (0.0, 0, 1), 3.6, 0.6),
    "Ant": ((0.94, -0.34, 0), (0.17, 0.47, 0.87), 5.0, 0.6),
    "Reacher": ((1.0, 0, 0), (0.0, 1, 0), 0.62, 0.0),
    "Swimmer": ((1.0, 0, 0), (0.0, 1, 0), 4.5, 0.0),
}
_FROM_THE_SIDE = ("Walker2d", "Hopper", "HalfCheetah")


def film(
    act: Act, environment: str, path: Path, seed: int = 0, report: Callable[[int, int], None] = lambda *_: None
) -> Visited:
    """Let `act` drive for at most 300 steps, and film it in the robot's own time: WebM (480 x 320, VP8) at `path`."""
    writer = cv2.VideoWriter()

    def watch(world: Any, step: int, expert: int) -> None:
        seconds = float(world.unwrapped.dt)
        every = max(1, round(1 / _FRAMES_A_SECOND / seconds))
        if not step:
            writer.open(str(path), cv2.VideoWriter.fourcc(*"VP80"), 1 / (seconds * every), (WIDTH, HEIGHT))
        if step % every == 0:
            writer.write(draw(environment, parts_of(world), COLOURS[expert % len(COLOURS)])[..., ::-1])
        report(step + 1, _FILMED)

    driven = visit(act, environment, 1, seed, most=_FILMED, watch=watch)
    writer.release()
    return driven


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

    def place(x: float, y: float, z: float) -> FloatArray:
        """Where a point of the world is in the picture, in pixels (2,)."""
        across, above = (np.array([x, y, z]) - centre_3) @ np.array([right_3, up_3]).T * scale
        return np.array([WIDTH / 2 + across, HEIGHT / 2 - above])

    # Marks that stand still in the world, a metre apart, so that one sees the robot move.
    east, north = np.floor(centre_3[:2]) - 4
    if environment in _FROM_THE_SIDE:
        level = round(place(0, 0, 0)[1])
        picture[level:] = _rgb(_GROUND)
        for step in range(10):
            x = round(place(east + step, 0, 0)[0])
            cv2.line(picture, (x, level), (x, level + 14), _rgb(_MARK), 2)
    elif environment != "Reacher":
        for column, row in np.ndindex(10, 10):
            mark = np.round(place(east + column, north + row, 0)).astype(int).tolist()
            cv2.circle(picture, mark, 2, _rgb(_MARK), -1, cv2.LINE_AA)
    for part in parts:
        paint = _rgb(_TARGET if part.target else colour)
        _rod(picture, place(*part.begin_3), place(*part.end_3), max(part.radius * scale, 1.5), paint)
    return picture


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _rod(picture: NDArray[np.uint8], begin: FloatArray, end: FloatArray, reach: float, paint: Sequence[int]) -> None:
    x, y = end - begin
    aside = reach * np.array([-y, x]) / max(math.hypot(x, y), 1e-6)
    points = [begin + aside, end + aside, end - aside, begin - aside, begin, end]
    *corners, begin, end = np.round(np.array(points) * 2**_SHIFT).astype(np.int32)
    cv2.fillConvexPoly(picture, np.array(corners), paint, cv2.LINE_AA, _SHIFT)
    for point in (begin, end):
        cv2.circle(picture, point.tolist(), round(reach * 2**_SHIFT), paint, -1, cv2.LINE_AA, _SHIFT)
