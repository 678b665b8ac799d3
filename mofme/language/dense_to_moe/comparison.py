"""The converted model beside the dense one and the controls, all with the same tokens and the same target.

Axis names: W windows of the text, N questions, S seeds.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from mofme.core.moe import activated_parameters, parameters
from mofme.language.dense_to_moe.conversion import Conversion, convert_to, set_policies, uniform
from mofme.language.dense_to_moe.converted_layer import Recipe
from mofme.language.dense_to_moe.cost import (
    FloatArray,
    active_experts,
    budget,
    seconds,
)
from mofme.language.dense_to_moe.profile import choose
from mofme.language.pretrained import PretrainedLM
from mofme.language.scoring import BoolArray, ChoiceScore, TextScore, score_questions, score_text
from mofme.language.text import Question
from mofme.measure.study import Study, fingerprint

DENSE = "dense"
OURS = "converted, policies chosen"
UNIFORM = "converted, uniform top-k"
RANDOM = "random split, policies chosen"
PRUNED = "static pruning, sizes chosen"
CMOE = "CMoE-like, untrained, uniform top-k"
ARMS = (DENSE, OURS, UNIFORM, RANDOM, PRUNED, CMOE)
TRACED = (OURS, PRUNED)
_TIMED_TOKENS = 256

Say = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One arm with one seed. `activated` counts parameters of an average token of the measured text."""

    activated: float
    nats_W: FloatArray
    tokens_W: FloatArray
    right_N: BoolArray
    right_normalized_N: BoolArray

    @property
    def text(self) -> TextScore:
        return TextScore(self.nats_W, self.tokens_W)

    @property
    def choice(self) -> ChoiceScore:
        return ChoiceScore(self.right_N, self.right_normalized_N)


@dataclass(frozen=True)
class Setting:
    """What all arms share: the text to learn from, what is measured, and how much is to be saved.

    `frontier` holds other targets, for which layers stay as they were built for `target` and only policies change.
    """

    learned: Sequence[int]
    measured: Sequence[int]
    questions: Sequence[Question]
    recipe: Recipe
    target: float
    frontier: Sequence[float] = ()
    repeats: int = 11


@dataclass(frozen=True)
class Comparison:
    """By arm: what each seed measured, and CPU seconds (repeats, 2) to read a text and to write a token.

    `frontier`: by arm and target, the first seed on the text alone.
    """

    arms: Mapping[str, Sequence[Measured]]
    seconds: Mapping[str, FloatArray]
    parameters: int
    frontier: Mapping[str, Mapping[float, Measured]] = field(default_factory=dict)


def compare(
    fresh: Callable[[], PretrainedLM], setting: Setting, seeds: Sequence[int], folder: Path, say: Say
) -> Comparison:
    """Convert and measure every arm with every seed. `fresh` opens the dense model anew.

    `folder` keeps what is finished: stopped and called again with the same arguments it goes on from there.
    Raises ModelError if it holds a comparison with another setting.
    """
    dense = fresh()
    study = Study(folder, {"model": dense.name, **_told(setting)})
    budgets = {target: budget(dense.model, setting.recipe, target) for target in setting.frontier}
    arms: dict[str, list[Measured]] = {arm: [] for arm in ARMS}
    timed: dict[str, PreTrainedModel] = {}
    frontier: dict[str, dict[float, Measured]] = {}

    def model_of(arm: str, seed: int) -> tuple[PretrainedLM, Conversion | None]:
        say(f"{arm}, seed {seed}")
        if arm == DENSE:
            return dense, None
        lm = fresh()
        return lm, _convert(lm.model, arm, replace(setting.recipe, seed=seed), setting, folder, say)

    for seed in seeds:
        for arm in ARMS:
            name = f"{ARMS.index(arm)}-{seeds[0] if arm == DENSE else seed}"
            if seed == seeds[0] and arm in (DENSE, *TRACED):
                lm, conversion = model_of(arm, seed)
                timed[arm] = lm.model
                arms[arm].append(study.kept(name, Measured, partial(_measure, lm, setting)))
                if conversion:
                    frontier[arm] = _trace(lm, conversion, budgets, setting, study, f"frontier-{name}", say)
            else:
                arms[arm].append(study.kept(name, Measured, lambda: _measure(model_of(arm, seed)[0], setting)))  # noqa: B023
            gc.collect()
    say("time")
    taken = seconds(timed, list(setting.measured[:_TIMED_TOKENS]), setting.repeats)
    return Comparison(arms, taken, parameters(dense.model), frontier)


def _told(setting: Setting) -> dict[str, Any]:
    """All that the kept figures depend on, but for the seed and the model."""
    read = {name: fingerprint(getattr(setting, name)) for name in ("learned", "measured", "questions")}
    recipe = {name: value for name, value in asdict(setting.recipe).items() if name != "seed"}
    return {**read, **recipe, "target": setting.target}


def _convert(model: PreTrainedModel, arm: str, recipe: Recipe, setting: Setting, folder: Path, say: Say) -> Conversion:
    if arm == RANDOM:
        recipe = replace(recipe, split="random")
    elif arm == PRUNED:
        recipe = replace(recipe, split="importance")
    elif arm == CMOE:
        recipe = replace(recipe, split="activation", learned=False)
    # Ours and its uniform policy are one conversion.
    work = folder / f"work-{ARMS.index(OURS if arm == UNIFORM else arm)}-{recipe.seed}"
    conversion = convert_to(
        model, setting.learned, recipe, setting.target, work, lambda done, total: say(f"{arm}: layer {done} of {total}")
    )
    if arm in (UNIFORM, CMOE):
        set_policies(model, uniform(len(conversion.chosen), conversion.budget))
    return conversion


def _trace(
    lm: PretrainedLM,
    conversion: Conversion,
    budgets: Mapping[float, float],
    setting: Setting,
    study: Study,
    name: str,
    say: Say,
) -> dict[float, Measured]:
    """Measure policies for every budget, and leave the model with those that it had."""

    def measured(target: float) -> Measured:
        say(f"frontier: {target:.0%}")
        set_policies(lm.model, [one.policy for one in choose(conversion.profiles, budgets[target])])
        return _measure(lm, replace(setting, questions=()))

    points = {target: study.kept(f"{name}-{target:g}", Measured, partial(measured, target)) for target in budgets}
    set_policies(lm.model, [one.policy for one in conversion.chosen])
    return points


def _measure(lm: PretrainedLM, setting: Setting) -> Measured:
    text = score_text(lm.model, setting.measured)
    nothing_N = np.zeros(0, dtype=bool)
    choice = score_questions(lm, setting.questions) if setting.questions else ChoiceScore(nothing_N, nothing_N)
    activated = activated_parameters(lm.model, active_experts(lm.model, setting.measured))
    return Measured(activated, text.nats_W, text.tokens_W, choice.right_N, choice.right_normalized_N)
