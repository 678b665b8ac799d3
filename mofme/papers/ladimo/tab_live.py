"""A short conversion on the spot: the dense model, what becomes of it, and controls, all measured on held-back text;
and a prompt written on by such a model.

Axis names: L layers, E experts.
"""

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel

from mofme.core.moe import activated_parameters, observe_routing, parameters
from mofme.errors import MofmeError, TableError
from mofme.language.pretrained import PretrainedLM, decoder_layers, dense_weights
from mofme.language.scoring import ChoiceScore, TextScore, score_questions, score_text
from mofme.language.text import Question
from mofme.measure.statistics import FloatArray
from mofme.papers.ladimo.conversion import PASSAGE, Conversion, convert
from mofme.papers.ladimo.converted_layer import Recipe, Split, converted_layers, expert_visits, set_policies, uniform
from mofme.papers.ladimo.tab import PRUNED, RANDOM
from mofme.ui.runs import Job

DENSE, OURS, UNIFORM = "dense model", "converted", "converted, all layers alike"
MEASURED = 2048
TOKENS = 40  # that are written
CHARACTERS = 2000  # of a prompt
_FEWEST = 64
_MEASURING = 4  # layers that could be converted in the time that measuring takes, roughly


def recipe_for(model: PreTrainedModel, experts: int, shared: float, tokens: int, split: Split, seed: int = 0) -> Recipe:
    """With as many shared neurons as come closest to the share of a layer's and leave equally large experts."""
    neurons = len(dense_weights(decoder_layers(model)[0].mlp)[0])
    hidden = max(1, round(neurons * (1 - shared) / experts))
    return Recipe(experts, 1, max(0, neurons - hidden * experts), split, tokens, seed=seed)


@dataclass(frozen=True)
class Arm:
    """One model on the held-back text and questions; `activated` parameters are those of an average token."""

    name: str
    activated: float
    text: TextScore
    choice: ChoiceScore | None


@dataclass(frozen=True)
class Converted:
    """The model that came out, what was chosen for its layers, how often each expert is used (0 to 1), and all arms."""

    lm: PretrainedLM
    conversion: Conversion
    use_LE: FloatArray
    arms: Sequence[Arm]
    parameters: int
    learned: int
    measured: int


def divide(ids: Sequence[int], name: str) -> tuple[Sequence[int], Sequence[int]]:
    """What is learned from, and what is measured on: at most the last fifth. Raises TableError for too short a text."""
    begin = max(len(ids) * 4 // 5, len(ids) - MEASURED)
    if begin < 2 * PASSAGE or len(ids) - begin < _FEWEST:
        least = 2 * PASSAGE * 5 // 4
        raise TableError(f"{name} has {len(ids)} tokens (pieces of words); at least {least} are needed: add more text.")
    return ids[:begin], ids[begin:]


def convert_live(
    lm: PretrainedLM,
    ids: Sequence[int],
    name: str,
    questions: Sequence[Question],
    recipe: Recipe,
    target: float,
    controls: Sequence[str],
    job: Job,
) -> Converted:
    """Convert a copy of `lm`, and measure it beside the dense model and the controls, which are two at most.

    Raises MofmeError when the job is stopped, its time is up, or recipe or target (0 to 1) do not fit model or text.
    """
    learned, measured = divide(ids, name)
    layers = len(decoder_layers(lm.model))
    total, done = (layers + _MEASURING) * (1 + len(controls)) + 2 * _MEASURING, 0

    def go(steps: int, words: str) -> None:
        nonlocal done
        done += steps
        job.report(min(1.0, done / total), words)

    def measure(arm: str, model: PreTrainedModel) -> tuple[Arm, FloatArray]:
        go(0, f"Measuring: {arm}")
        text = score_text(model, measured, report=lambda *_: job.check())
        one = replace(lm, model=model)
        choice = score_questions(one, questions, lambda *_: job.check()) if questions else None
        use_LE = expert_visits(model, measured) / len(measured)
        go(_MEASURING, f"Measured: {arm}")
        return Arm(arm, activated_parameters(model, use_LE.sum(-1)), text, choice), use_LE

    def become(arm: str, recipe: Recipe) -> tuple[PreTrainedModel, Conversion]:
        model = _copy(lm.model)

        def tell(layer: int, layers: int) -> None:
            words = f"{arm}: layer {layer + 1} of {layers}" if layer < layers else f"{arm}: choosing for each layer"
            go(int(layer > 0), words[:1].upper() + words[1:])

        with tempfile.TemporaryDirectory() as work:
            return model, convert(model, learned, recipe, target, Path(work), tell)

    arms = [measure(DENSE, lm.model)[0]]
    model, conversion = become(OURS, recipe)
    ours, use_LE = measure(OURS, model)
    set_policies(model, uniform(layers, conversion.budget))
    arms += [ours, measure(UNIFORM, model)[0]]
    set_policies(model, [candidate.policy for candidate in conversion.chosen])
    splits: dict[str, Split] = {RANDOM: "random", PRUNED: "importance"}
    arms += [measure(name, become(name, replace(recipe, split=splits[name]))[0])[0] for name in controls]
    passages = min(len(learned), recipe.tokens) // PASSAGE
    result = replace(lm, name=f"{lm.name}, converted", model=model)
    return Converted(result, conversion, use_LE, arms, parameters(lm.model), passages * PASSAGE, len(measured))


@dataclass(frozen=True)
class Written:
    """What was written, at how many tokens a second, using which share (0 to 1) of all parameters."""

    text: str
    speed: float
    used: float


@torch.inference_mode()
def write(lm: PretrainedLM, prompt: str, tokens: int = TOKENS) -> Written:
    """Up to `tokens` tokens after the prompt, the likeliest each time; reading the prompt counts in both figures.
    Raises MofmeError for a prompt that is empty or too long."""
    ids_1T = torch.tensor([lm.tokens(prompt)], dtype=torch.long)
    if not ids_1T.numel():
        raise MofmeError("Type how the text begins first.")
    if len(prompt) > CHARACTERS:
        raise MofmeError(f"The beginning has {len(prompt):,} characters, more than the limit of {CHARACTERS:,}.")
    model, end = lm.model, lm.tokenizer.eos_token_id
    layers = len(converted_layers(model))
    with observe_routing(model) as observed:
        start = time.perf_counter()
        both_1T = model.generate(  # type: ignore[operator]
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            generation_config=GenerationConfig(max_new_tokens=tokens, eos_token_id=end, pad_token_id=end),
        )
        seconds = time.perf_counter() - start
    new = [token for token in both_1T[0, ids_1T.shape[1] :].tolist() if token != end]
    read = both_1T.shape[1] - 1  # nothing reads the last one
    active_L = [sum(float(one.decision.chosen_TE.sum()) for one in observed[n::layers]) / read for n in range(layers)]
    used = activated_parameters(model, active_L) / parameters(model)
    return Written(str(lm.tokenizer.decode(new, skip_special_tokens=True)), len(new) / seconds, used)


def _copy(model: PreTrainedModel) -> PreTrainedModel:
    """One whose layers can be replaced. Weights are shared: they are never changed."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
