"""MuJoCo's six robots as the paper uses them (gymnasium, version 4): what their numbers are called, and driving them.

Axis names: T steps, D observations, A actions, E experts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mofme.errors import ModelError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
# An observation (D,) -> an action (A,) and the number of the expert that chose it.
Act = Callable[[np.ndarray], tuple[np.ndarray, int]]

# Mean returns that the paper reports for SMOSE (its main table), after a million steps.
PUBLISHED = {
    "Walker2d": 4224.0,
    "Hopper": 2816.0,
    "Ant": 3245.0,
    "HalfCheetah": 7310.0,
    "Reacher": -5.49,
    "Swimmer": 45.4,
}
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
    except ImportError as error:
        raise ModelError(f"robots need gymnasium and MuJoCo ({error}); {_INSTALL}") from error
    # It would say at every call that there is a version 5; the paper's figures are of version 4.
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    # MuJoCo finds a word in a robot's file old-fashioned, and would say so in a file where the user stands.
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        return gymnasium.make(f"{name}-v4")
    except ImportError as error:
        raise ModelError(f"robots need a package that is missing ({error}); {_INSTALL}") from error
    finally:
        mujoco.set_mju_user_warning(None)


def spaces(name: str) -> Spaces:
    """What the numbers of an environment mean, from its MuJoCo model."""
    environment = make(name)
    try:
        model = environment.unwrapped.model
        observations = _REACHER if name == "Reacher" else _joints(model, _HIDDEN_POSITIONS[name])
        actions = tuple(_motor(model, number) for number in range(model.nu))
        space = environment.action_space
        return Spaces(tuple(observations), actions, tuple(map(float, space.low)), tuple(map(float, space.high)))
    finally:
        environment.close()


@dataclass(frozen=True)
class Visited:
    """What a policy saw in some episodes (T, D), which expert answered (T,), and each episode's return and length."""

    x_TD: FloatArray
    expert_T: IntArray
    returns: tuple[float, ...]
    lengths: tuple[int, ...]


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


def visit(act: Act, environment: str, episodes: int, seed: int, at_least: int = 0) -> Visited:
    """Let a function of the observation act, and remember what it saw: more episodes if they hold too few steps.

    Episodes begin where `seed`, `seed` + 1, ... say.
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
            seen.append(np.asarray(x_D, np.float64))
            experts.append(expert)
            x_D, reward, ended, cut, _ = world.step(action_A)
            earned, over = earned + float(reward), ended or cut
        returns.append(earned)
        lengths.append(len(seen) - before)
    world.close()
    return Visited(np.stack(seen), np.asarray(experts, np.int64), tuple(returns), tuple(lengths))


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


def _joints(model: Any, hidden: int) -> Sequence[str]:
    positions: list[str] = []
    speeds: list[str] = []
    for number in range(model.njnt):
        name = _plain(model.joint(number).name)
        if int(model.jnt_type[number]) == 0:
            positions += [f"{name} {axis}" for axis in _FREE_POSITIONS]
            speeds += [f"{name} {axis}" for axis in _FREE_SPEEDS]
        else:
            positions.append(name)
            speeds.append(f"{name} speed")
    return positions[hidden:] + speeds


def _motor(model: Any, number: int) -> str:
    """A motor is called after the joint that it turns."""
    return _plain(model.joint(int(model.actuator_trnid[number, 0])).name)
