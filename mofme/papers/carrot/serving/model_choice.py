"""Which backend a prompt goes to: the router's choice, kept to the models that there are backends for."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from mofme.errors import ConfigError
from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.carrot import Estimate, at_least_quality, within_budget
from mofme.papers.carrot.serving.config import Rule, ServingConfig
from mofme.papers.carrot.trained_router import Routed

Embed = Callable[[str], FloatArray]  # a text -> its embedding (D,), of length 1


class Router(Protocol):
    """What the endpoint needs of a router; it is called from one thread only."""

    @property
    def models(self) -> Sequence[str]: ...
    def route(
        self,
        prompt: str,
        *,
        cost_weight: float | None = None,
        budget: float | None = None,
        quality: float | None = None,
    ) -> Routed: ...


class ModelChoice:
    """Routes off the event loop; `seconds` and `failures` are what that took so far.

    Raises ConfigError if the router knows none of the backends, or if one that it does not know is no fallback: such a
    name is nearly always misspelt.
    """

    def __init__(self, config: ServingConfig, router: Router, thread: Executor) -> None:
        names = [backend.name for backend in config.backends]
        known = ", ".join(router.models)
        if strange := [name for name in names if name not in {*router.models, *config.fallbacks}]:
            raise ConfigError(
                f"backends: the router does not know {strange[0]!r}, so it would never be chosen. Rename it to one of "
                f"{known}, or list it under fallbacks"
            )
        self._choosable = [name for name in names if name in router.models]
        if not self._choosable:
            raise ConfigError(f"backends: the router knows none of them. Name at least one of {known}")
        self._config, self._router, self._thread = config, router, thread
        self._order = list(dict.fromkeys([*config.fallbacks, *names]))
        self.calls = 0
        self.seconds = 0.0
        self.failures = 0

    async def order(self, prompt: str) -> list[str]:
        """All backends' names in the order to try them: the chosen one, the fallbacks, the rest."""
        began = time.perf_counter()
        chosen = self._config.best_backend.name
        if prompt:
            try:
                loop = asyncio.get_running_loop()
                chosen = await loop.run_in_executor(self._thread, self._choose, prompt)
            except Exception:  # a prompt that the router stumbles over still gets its answer
                self.failures += 1
        self.calls += 1
        self.seconds += time.perf_counter() - began
        return list(dict.fromkeys([chosen, *self._order]))

    def _choose(self, prompt: str) -> str:
        routed = self._router.route(prompt, **self._config.rule.dial())
        return routed.model if routed.model in self._choosable else choose(routed, self._config.rule, self._choosable)


def choose(routed: Routed, rule: Rule, names: Sequence[str]) -> str:
    """The model that the rule picks among `names`, a part of the router's models."""
    columns = [list(routed.models).index(name) for name in names]
    estimate = Estimate(routed.quality_M[None, columns], routed.cost_M[None, columns])
    if rule.budget is not None:
        return names[int(within_budget(estimate, rule.budget)[0])]
    if rule.quality is not None:
        return names[int(at_least_quality(estimate, rule.quality)[0])]
    return names[int(routed.decision.logits_TE[0, columns].argmax())]
