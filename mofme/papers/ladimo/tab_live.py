"""A short conversion on the spot: the dense model, what becomes of it, and controls, all measured on held-back text;
and a prompt written on by such a model.

Axis names: L layers, E experts.
"""

import copy
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
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
from mofme.papers.ladimo.converted_layer import Recipe, Split, converted_layers, expert_use, set_policies, uniform
from mofme.papers.ladimo.tab import PRUNED, RANDOM
from mofme.ui.runs import Job

DENSE, OURS, UNIFORM = "dense model", "converted", "converted, all layers alike"
MEASURED = 2048
TOKENS = 40  # that are written
CHARACTERS = 2000  # of a prompt
_FEWEST = 64
_MEASURING = 4  # layers that could be converted in the time that measuring takes, roughly


@dataclass(frozen=True)
class Wish:
    """What a visitor asked for: shares from 0 to 1, `shared` of a layer's neurons and `target` of all parameters."""

    target: float
    experts: int
    shared: float
    tokens: int
    split: Split
    controls: Sequence[str] = ()
    seed: int = 0

    def recipe(self, model: PreTrainedModel) -> Recipe:
        """With as many shared neurons as come closest to the share and leave equally large experts."""
        neurons = len(dense_weights(decoder_layers(model)[0].mlp)[0])
        hidden = max(1, round(neurons * (1 - self.shared) / self.experts))
        return Recipe(
            experts=self.experts,
            active=1,
            shared=max(0, neurons - hidden * self.experts),
            split=self.split,
            tokens=self.tokens,
            seed=self.seed,
        )


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
    wish: Wish,
    job: Job,
) -> Converted:
    """Convert a copy of `lm`, and measure it beside the dense model and the controls of the wish.

    Raises MofmeError when the job is stopped, its time is up, or the wish does not fit the model or the text.
    """
    learned, measured = divide(ids, name)
    recipe = wish.recipe(lm.model)
    layers = len(decoder_layers(lm.model))
    conversions = 1 + len(wish.controls)
    steps = _Steps((layers + _MEASURING) * conversions + 2 * _MEASURING, job)

    def measure(arm: str, model: PreTrainedModel) -> tuple[Arm, FloatArray]:
        steps.go(0, f"Measuring: {arm}")
        text = score_text(model, measured, report=lambda *_: job.check())
        one = replace(lm, model=model)
        choice = score_questions(one, questions, lambda *_: job.check()) if questions else None
        use_LE = expert_use(model, measured)
        steps.go(_MEASURING, f"Measured: {arm}")
        return Arm(arm, activated_parameters(model, use_LE.sum(-1)), text, choice), use_LE

    def become(arm: str, recipe: Recipe) -> tuple[PreTrainedModel, Conversion]:
        model = _copy(lm.model)

        def tell(done: int, total: int) -> None:
            words = f"{arm}: layer {done + 1} of {total}" if done < total else f"{arm}: choosing for each layer"
            steps.go(int(done > 0), words[:1].upper() + words[1:])

        with tempfile.TemporaryDirectory() as work:
            return model, convert(model, learned, recipe, wish.target, Path(work), tell)

    arms = [measure(DENSE, lm.model)[0]]
    model, conversion = become(OURS, recipe)
    ours, use_LE = measure(OURS, model)
    set_policies(model, uniform(layers, conversion.budget))
    arms += [ours, measure(UNIFORM, model)[0]]
    set_policies(model, [candidate.policy for candidate in conversion.chosen])
    controls = {RANDOM: replace(recipe, split="random"), PRUNED: replace(recipe, split="importance")}
    for control in wish.controls:
        arms.append(measure(control, become(control, controls[control])[0])[0])
    passages = min(len(learned), wish.tokens) // PASSAGE
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

    Raises MofmeError for a prompt that is empty or too long.
    """
    ids_1T = torch.tensor([lm.tokens(prompt)], dtype=torch.long)
    if not ids_1T.numel():
        raise MofmeError("Type how the text begins first.")
    if len(prompt) > CHARACTERS:
        raise MofmeError(f"The beginning has {len(prompt):,} characters, more than the limit of {CHARACTERS:,}.")
    model, end = lm.model, lm.tokenizer.eos_token_id
    layers = len(converted_layers(model))
    with ExitStack() as watching:
        observed = watching.enter_context(observe_routing(model)) if layers else []
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


class _Steps:
    """Counts what is done, tells it, and stops where the job says so."""

    def __init__(self, total: int, job: Job) -> None:
        self._total, self._job, self._done = total, job, 0

    def go(self, steps: int, words: str) -> None:
        self._done += steps
        self._job.report(min(1.0, self._done / self._total), words)
