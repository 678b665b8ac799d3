"""One episode to look at: a film of the robot, coloured by the expert that drives it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2

from mofme.control.drawing import COLOURS, HEIGHT, WIDTH, draw, parts_of
from mofme.control.environments import make
from mofme.control.evaluation import Act

_FRAMES_A_SECOND = 25


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
