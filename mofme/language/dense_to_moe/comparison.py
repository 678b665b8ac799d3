"""The converted model beside the dense one and the controls, all with the same tokens and the same target.

Axis names: W windows of the text, N questions, S seeds.
"""

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from mofme.language.dense_to_moe.conversion import convert_to, set_policies, uniform
from mofme.language.dense_to_moe.converted_layer import Recipe
from mofme.language.dense_to_moe.cost import FloatArray, activated_parameters, active_experts, parameters, seconds
from mofme.language.host import Host
from mofme.language.scoring import BoolArray, ChoiceScore, TextScore, score_questions, score_text
from mofme.language.texts import Question

DENSE = "dense"
OURS = "converted, policies chosen"
UNIFORM = "converted, uniform top-k"
RANDOM = "random split, policies chosen"
PRUNED = "static pruning, sizes chosen"
CMOE = "CMoE-like, untrained, uniform top-k"
ARMS = (DENSE, OURS, UNIFORM, RANDOM, PRUNED, CMOE)
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
    """What all arms share: the text to learn from, what is measured, and how much is to be saved."""

    learned: Sequence[int]
    measured: Sequence[int]
    questions: Sequence[Question]
    recipe: Recipe
    target: float
    repeats: int = 5


@dataclass(frozen=True)
class Comparison:
    """By arm: what each seed measured, and CPU seconds (repeats, 2) to read a text and to write a token."""

    arms: Mapping[str, Sequence[Measured]]
    seconds: Mapping[str, FloatArray]
    parameters: int


def compare(fresh: Callable[[], Host], setting: Setting, seeds: Sequence[int], folder: Path, say: Say) -> Comparison:
    """Convert and measure every arm with every seed. `fresh` opens the dense model anew.

    `folder` keeps what is finished: stopped and called again with the same arguments it goes on from there.
    """
    arms: dict[str, list[Measured]] = {arm: [] for arm in ARMS}
    timed: dict[str, PreTrainedModel] = {}
    for seed in seeds:
        for arm in ARMS:
            path = folder / f"{ARMS.index(arm)}-{seeds[0] if arm == DENSE else seed}.json"
            timing = seed == seeds[0] and arm in (DENSE, OURS, PRUNED)
            if not path.is_file() or timing:
                say(f"{arm}, seed {seed}")
                host = fresh()
                _become(host.model, arm, replace(setting.recipe, seed=seed), setting, folder, say)
                if not path.is_file():
                    _save(path, _measure(host, setting))
                if timing:
                    timed[arm] = host.model
                del host
                gc.collect()
            arms[arm].append(_load(path))
    say("time")
    taken = seconds(timed, list(setting.measured[:_TIMED_TOKENS]), setting.repeats)
    return Comparison(arms, taken, parameters(timed[DENSE]))


def _become(model: PreTrainedModel, arm: str, recipe: Recipe, setting: Setting, folder: Path, say: Say) -> None:
    if arm == DENSE:
        return
    if arm == RANDOM:
        recipe = replace(recipe, split="random")
    elif arm == PRUNED:
        recipe = replace(recipe, split="importance", shared=0)
    elif arm == CMOE:
        recipe = replace(recipe, split="activation", learned=False)
    # Ours and its uniform policy are one conversion.
    work = folder / f"work-{ARMS.index(OURS if arm == UNIFORM else arm)}-{recipe.seed}"
    conversion = convert_to(
        model, setting.learned, recipe, setting.target, work, lambda done, total: say(f"{arm}: layer {done} of {total}")
    )
    if arm in (UNIFORM, CMOE):
        set_policies(model, uniform(len(conversion.chosen), conversion.budget))


def _measure(host: Host, setting: Setting) -> Measured:
    text = score_text(host.model, setting.measured)
    choice = score_questions(host, setting.questions)
    activated = activated_parameters(host.model, active_experts(host.model, setting.measured))
    return Measured(activated, text.nats_W, text.tokens_W, choice.right_N, choice.right_normalized_N)


def _save(path: Path, measured: Measured) -> None:
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(measured).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(plain), encoding="utf-8")
    partial.replace(path)


def _load(path: Path) -> Measured:
    plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    activated = float(plain.pop("activated"))
    return Measured(activated, **{name: np.array(value) for name, value in plain.items()})
