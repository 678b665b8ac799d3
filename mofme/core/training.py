"""One way to train: so many steps or seconds, rates that follow how much of them is done, and a state to go on from.

run = Run(net, optimizer, steps=1000, schedule=cosine(floor=0.1), warm_up=50, clip=1.0, stopped=stopped)
run.resume(folder / "state.pt", settings)
for step in run:
    loss = run.learn(loss_of(net, batch(step)))
    if run.due(100):
        report(f"step {run.steps}  loss {loss:.3f}")
        run.save()
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mofme.errors import Cancelled, ModelError, MofmeError
from mofme.files import CARD_FILE, atomic_file

Schedule = Callable[[float, float], float]
_UNUSABLE_IN_A_ROW = 10


def linear(done: float, total: float) -> float:
    """From 1 down to 0."""
    return 1 - done / total


def cosine(floor: float) -> Schedule:
    """From 1 down to `floor`, along half a cosine (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts)."""

    def schedule(done: float, total: float) -> float:
        return floor + (1 - floor) * (1 + math.cos(math.pi * done / total)) / 2

    return schedule


@dataclass(frozen=True)
class StepReport:
    """After a step: which it was, of how many, and its loss."""

    step: int
    steps: int
    loss: float


class Run:
    """The training of one net, for `steps` or for `seconds`, over all resumed runs together.

    `schedule` says what share of each group's rate is used when so much is done, of how much in all, and rises to it
    over `warm_up` steps; without one the rates are left alone. `clip` is the largest norm of all gradients. `average`
    follows the net. `stopped` is asked before every step. Nothing is drawn at random here.

    `steps` and `seconds` count what is done; `notes` are plain values that are kept with them. Where several processes
    train together, a subclass replaces `backward`, `clipped_norm` and `elapsed`.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        steps: int | None = None,
        seconds: float | None = None,
        schedule: Schedule | None = None,
        warm_up: int = 0,
        clip: float = math.inf,
        average: AveragedModel | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        total = seconds if steps is None else steps
        if total is None or None not in (steps, seconds):
            raise ValueError("a run has either so many steps or so many seconds")
        self.total, self._timed = total, steps is None
        self.net, self.optimizer, self.average = net, optimizer, average
        self.schedule, self.warm_up, self.clip, self.stopped = schedule, warm_up, clip, stopped
        self.steps, self.seconds = 0, 0.0
        self.notes: dict[str, Any] = {}
        self._rates = [group["lr"] for group in optimizer.param_groups]  # a state holds those of its last step
        self._unusable = 0
        self._tick = 0.0

    def __iter__(self) -> Iterator[int]:
        """The number of each step from 0, its rates set; the block has to end with `learn`. Raises Cancelled."""
        self._tick = time.monotonic()
        while not self.over:
            if self.stopped is not None and self.stopped():
                of = "" if self._timed else f" of {self.total}"
                raise Cancelled(f"Stopped, as you asked, after {self.steps}{of} steps.")
            if self.schedule is not None:
                for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                    group["lr"] = rate * self.share
            yield self.steps

    @property
    def over(self) -> bool:
        return self._done >= self.total

    @property
    def trained(self) -> nn.Module:
        """What has come of it: the average, or the net where there is none."""
        return self.net if self.average is None else self.average.module

    def due(self, every: int) -> bool:
        """Whether it is time for what is done after every so many steps, and after the last."""
        return self.steps % every == 0 or self.over

    @property
    def share(self) -> float:
        """What share of their rates the optimizer's groups have in this step."""
        if self.schedule is None:
            return 1.0
        return self.schedule(self._done, self.total) * min(1.0, (self.steps + 1) / max(1, self.warm_up))

    def learn(self, loss: Tensor) -> float:
        """One step down the gradients of `loss`, left out if they are not finite; returns the loss.

        Raises MofmeError where ten steps in a row had to be left out.
        """
        self.backward(loss)
        if self.clipped_norm().isfinite():
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.net)
            self._unusable = 0
        else:
            self._unusable += 1
        self.optimizer.zero_grad()
        self.steps += 1
        self.seconds += self.elapsed()
        if self._unusable and (self._unusable == _UNUSABLE_IN_A_ROW or self._unusable == self.total):
            raise MofmeError(f"{self._unusable} steps in a row had no finite gradients: lower the learning rate")
        return loss.item()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def clipped_norm(self) -> Tensor:
        """The norm of all gradients, which are at most `clip` long from now on."""
        return nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)

    def elapsed(self) -> float:
        """Seconds since this was last asked, or the state was last saved: writing is not training."""
        now = time.monotonic()
        elapsed, self._tick = now - self._tick, now
        return elapsed

    def resume(self, path: Path, settings: Mapping[str, Any] | None = None, **others: Any) -> bool:
        """Go on from what `save` wrote to `path`, if anything; true if so. `others` are kept beside net and optimizer.

        Raises ModelError if the file is damaged, of a run with other `settings` or of another net; and where there is a
        model without it, which a new run would replace.
        """
        self._path, self._settings = path, settings
        self._parts: dict[str, Any] = {"net": self.net, "optimizer": self.optimizer, **others}
        if self.average is not None:
            self._parts["average"] = self.average
        device = next(self.net.parameters()).device
        if (state := load_checkpoint(path, device)) is None:
            return False
        if settings is not None and (found := state.get("settings")) != settings:
            raise ModelError(
                f"{path} is of a run with other settings ({found}): keep to them, or choose another folder"
            )
        try:
            for name, part in self._parts.items():
                part.load_state_dict(state[name])
        except (KeyError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"{path} holds a net of another size, or other weights: keep to its settings, or choose another "
                f"folder: {error}"
            ) from None
        # Segmenters were once kept without notes.
        self.notes = dict(state.get("progress") or {"steps": state["step"], "seconds": state["seconds"]})
        self.steps, self.seconds = int(self.notes.pop("steps")), float(self.notes.pop("seconds"))
        return True

    def save(self) -> None:
        """Write the state to the path that `resume` was given; the file appears whole or not at all."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        progress = {"steps": self.steps, "seconds": self.seconds, **self.notes}
        save_checkpoint(self._path, {**state, "settings": self._settings, "progress": progress})
        self._tick = time.monotonic()

    @property
    def _done(self) -> float:
        return self.seconds if self._timed else self.steps


def bf16_pays(device: torch.device) -> bool:
    """Whether bfloat16 runs faster than float32 there.

    Dense convolutions do where a CPU multiplies bfloat16 (1.8 times in training, 2.4 times in inference, measured on
    AVX-512 with bf16); where it emulates it, they are slower.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and containers of them; the file appears whole or not at all."""
    with atomic_file(path) as file:
        torch.save(dict(state), file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """What `save_checkpoint` wrote; None where a run begins.

    Raises ModelError if the file is damaged, and where there is a model without it, which a new run would replace.
    """
    if not path.exists():
        if (path.parent / CARD_FILE).exists():
            raise ModelError(
                f"{path.parent} holds a model, but no {path.name} to go on from: a new run would replace the model, "
                "choose another folder for it"
            )
        return None
    try:
        # Of several processes on a CPU each calls it by its own number, which torch does not know how to load to.
        kind = torch.device(device).type
        state: dict[str, Any] = torch.load(path, map_location=kind, weights_only=True)
    except Exception as error:  # torch raises all kinds, and its own words advise to unpickle whatever is there
        raise ModelError(
            f"{path} is damaged or cannot be read ({type(error).__name__}): delete it, or choose another folder"
        ) from error
    return state


def part_of(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name` and a dot, without it."""
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer has gathered of each parameter, as tensors `<number>.<what>`, to be kept without any pickle."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{number}.{what}": value for number, moments in state.items() for what, value in moments.items()}


def fill_moments(optimizer: torch.optim.Optimizer, kept: Mapping[str, Tensor]) -> None:
    """Let it go on from what `moments_of` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in kept.items():
        number, _, what = name.partition(".")
        state.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
