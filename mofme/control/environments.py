"""MuJoCo's six robots as the paper uses them (gymnasium, version 4), and what their numbers are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mofme.errors import ModelError

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
