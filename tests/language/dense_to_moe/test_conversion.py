from collections.abc import Callable
from pathlib import Path

import pytest

from mofme.core.moe import activated_parameters, parameters
from mofme.errors import ModelError
from mofme.language.dense_to_moe.conversion import convert_to, uniform
from mofme.language.dense_to_moe.converted_layer import Recipe, converted_layers
from mofme.language.dense_to_moe.cost import active_experts
from mofme.language.dense_to_moe.policy import Policy
from mofme.language.pretrained import PretrainedLM

IDS = [(i * i + i // 7) % 60 + 1 for i in range(2048)]


def test_the_target_is_met(tiny_pretrained: Callable[..., PretrainedLM], tmp_path: Path) -> None:
    lm = tiny_pretrained()
    total = parameters(lm.model)
    conversion = convert_to(lm.model, IDS, Recipe(experts=8, active=1, tokens=1024), 0.2, tmp_path)
    assert sum(candidate.active for candidate in conversion.chosen) <= conversion.budget
    policies = [moe.router.policy for moe in converted_layers(lm.model)]
    assert policies == [candidate.policy for candidate in conversion.chosen]
    # Thresholds were chosen on passages held back, so another text may activate a few more or fewer.
    assert 1 - activated_parameters(lm.model, active_experts(lm.model, IDS)) / total == pytest.approx(0.22, abs=0.05)


def test_a_target_out_of_reach_is_refused(tiny_pretrained: Callable[..., PretrainedLM], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be saved"):
        convert_to(tiny_pretrained().model, IDS, Recipe(experts=8, active=1, tokens=1024), 0.9, tmp_path)


def test_a_uniform_top_k_keeps_the_average() -> None:
    # 10 experts over 4 layers: 2.5 each.
    assert uniform(4, 10.0) == [Policy("top-k", k) for k in (2, 3, 2, 3)]
    assert uniform(3, 6.0) == [Policy("top-k", 2)] * 3
    assert sum(policy.value for policy in uniform(30, 197.4)) == 197
