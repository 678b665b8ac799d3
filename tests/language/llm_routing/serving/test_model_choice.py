from dataclasses import dataclass

import numpy as np
import pytest

from mofme.core.routing import RoutingDecision
from mofme.language.llm_routing.carrot import Estimate, as_decision, plug_in
from mofme.language.llm_routing.serving.config import Rule
from mofme.language.llm_routing.serving.model_choice import choose


@dataclass
class Expectation:
    model = "best"
    models = ("best", "middle", "cheap")
    quality_M = np.array([0.9, 0.8, 0.3])
    cost_M = np.array([10.0, 4.0, 1.0])
    cost_weight: float = 0.0

    @property
    def decision(self) -> RoutingDecision:
        estimate = Estimate(self.quality_M[None], self.cost_M[None])
        return as_decision(plug_in(estimate, self.cost_weight, scale=10.0))


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        # (1 - w) quality - w cost / 10: at w = .1 middle .72 - .04 against cheap .27 - .01; at w = .9 .08 - .36 = -.28
        # against .03 - .09 = -.06.
        (Rule(cost_weight=0.1), "middle"),
        (Rule(cost_weight=0.9), "cheap"),
        (Rule(cost_weight=0.0), "middle"),
        (Rule(budget=4.0), "middle"),
        (Rule(budget=2.0), "cheap"),
        (Rule(budget=0.1), "cheap"),  # none is affordable: the cheapest
        (Rule(quality=0.2), "cheap"),
        (Rule(quality=0.5), "middle"),
        (Rule(quality=0.85), "middle"),  # none is good enough: the best there is
    ],
)
def test_the_rule_among_a_part_of_the_models(rule, chosen) -> None:
    assert choose(Expectation(rule.cost_weight or 0.0), rule, ["cheap", "middle"]) == chosen
