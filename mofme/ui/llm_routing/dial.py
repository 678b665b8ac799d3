"""How a visitor says what matters: by a weight between quality and cost, a budget, or the least quality."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofme.language.llm_routing.trained_router import Routed, TrainedRouter

WEIGHT, BUDGET, QUALITY = "Quality or cost", "Budget", "Least quality"
WAYS = (WEIGHT, BUDGET, QUALITY)

# Most changes of choice lie at small weights of cost: the slider gives them room.
_POWER = 3


@dataclass(frozen=True)
class Dial:
    """The widgets' values: `weight` from 0 (quality only) to 1 (cost only), `budget` in dollars per 1,000 prompts,
    `least` in percent. Only the one that `way` names counts.
    """

    way: str
    weight: float
    budget: float
    least: float

    def route(self, router: "TrainedRouter", prompt: str) -> "Routed":
        if self.way == BUDGET:
            return router.route(prompt, budget=self.budget / 1000)
        if self.way == QUALITY:
            return router.route(prompt, quality=self.least / 100)
        return router.route(prompt, cost_weight=self.weight**_POWER)
