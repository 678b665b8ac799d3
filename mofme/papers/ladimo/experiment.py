"""The converted model beside the dense one and the controls, all with the same tokens and the same target.

Axis names: W windows of the text, N questions, S seeds, X windows or questions.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from mofme.core.moe import parameters
from mofme.language.pretrained import PretrainedLM
from mofme.language.scoring import BoolArray, ChoiceScore, TextScore, score_questions, score_text
from mofme.language.text import Question
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, median_by_ranks, students_mean, wider, wilson
from mofme.measure.study import Study, fingerprint, plot
from mofme.papers.ladimo import ACCURACY, DENSE, FRONTIER, OURS, judge
from mofme.papers.ladimo.conversion import Conversion, convert
from mofme.papers.ladimo.converted_layer import Recipe, activated, budget, choose, set_policies, uniform

UNIFORM = "converted, uniform top-k"
RANDOM = "random split, policies chosen"
PRUNED = "static pruning, sizes chosen"
CMOE = "CMoE-like, untrained, uniform top-k"
ARMS = (DENSE, OURS, UNIFORM, RANDOM, PRUNED, CMOE)
TRACED = (OURS, PRUNED)
_READ_TOKENS, _WRITTEN_TOKENS = 256, 8  # to time reading, and writing one by one
_CHANGES: Mapping[str, Mapping[str, Any]] = {
    RANDOM: {"split": "random"},
    PRUNED: {"split": "importance"},
    CMOE: {"split": "activation", "learned": False},
}

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
    """By arm: what each seed measured, and CPU seconds (repeats, 2) to read a text and to write a token. `frontier`: by
    arm and target, the first seed on the text alone."""

    arms: Mapping[str, Sequence[Measured]]
    seconds: Mapping[str, FloatArray]
    parameters: int
    frontier: Mapping[str, Mapping[float, Measured]] = field(default_factory=dict)


def compare(
    fresh: Callable[[], PretrainedLM], setting: Setting, seeds: Sequence[int], folder: Path, say: Say
) -> Comparison:
    """Convert and measure every arm with every seed.

    `fresh` opens the dense model anew. `folder` keeps what is finished: stopped and called again with the same
    arguments it goes on from there. Raises ModelError if it holds a comparison with another setting.
    """
    dense = fresh()
    study = Study(folder, {"model": dense.name, **_told(setting)})
    budgets = {target: budget(dense.model, setting.recipe, target) for target in setting.frontier}
    arms: dict[str, list[Measured]] = {arm: [] for arm in ARMS}
    timed, frontier = {DENSE: dense.model}, dict[str, dict[float, Measured]]()

    def converted(arm: str, seed: int) -> tuple[PretrainedLM, Conversion]:
        def tell(done: int, total: int) -> None:
            say(f"{arm}: layer {done} of {total}")

        gc.collect()  # the last model, whose modules refer to each other
        lm, recipe = fresh(), replace(setting.recipe, seed=seed, **_CHANGES.get(arm, {}))
        # Ours and its uniform policy are one conversion.
        work = folder / f"work-{ARMS.index(OURS if arm == UNIFORM else arm)}-{seed}"
        conversion = convert(lm.model, setting.learned, recipe, setting.target, work, tell)
        if arm in (UNIFORM, CMOE):
            set_policies(lm.model, uniform(len(conversion.chosen), conversion.budget))
        return lm, conversion

    def traced(lm: PretrainedLM, conversion: Conversion, target: float) -> Measured:
        """By the policies of another budget, after which the model has those that it had."""
        say(f"frontier: {target:.0%}")
        set_policies(lm.model, [one.policy for one in choose(conversion.profiles, budgets[target])])
        found = _measure(lm, replace(setting, questions=()))
        set_policies(lm.model, [one.policy for one in conversion.chosen])
        return found

    for seed in seeds:
        for number, arm in enumerate(ARMS):
            say(f"{arm}, seed {seed}")
            kept = partial(study.kept, f"{number}-{seeds[0] if arm == DENSE else seed}", Measured)
            if arm == DENSE:
                arms[arm].append(kept(partial(_measure, dense, setting)))
            elif seed == seeds[0] and arm in TRACED:
                lm, conversion = converted(arm, seed)
                timed[arm] = lm.model
                arms[arm].append(kept(partial(_measure, lm, setting)))
                frontier[arm] = {
                    target: study.kept(
                        f"frontier-{number}-{seed}-{target:g}", Measured, partial(traced, lm, conversion, target)
                    )
                    for target in budgets
                }
            else:
                arms[arm].append(kept(lambda: _measure(converted(arm, seed)[0], setting)))  # noqa: B023
    say("time")
    taken = seconds(timed, list(setting.measured[:_READ_TOKENS]), setting.repeats)
    return Comparison(arms, taken, parameters(dense.model), frontier)


def _told(setting: Setting) -> dict[str, Any]:
    """All that the kept figures depend on, but for the seed and the model."""
    read = {name: fingerprint(getattr(setting, name)) for name in ("learned", "measured", "questions")}
    recipe = {name: value for name, value in asdict(setting.recipe).items() if name != "seed"}
    return {**read, **recipe, "target": setting.target}


def _measure(lm: PretrainedLM, setting: Setting) -> Measured:
    text = score_text(lm.model, setting.measured)
    nothing_N = np.zeros(0, dtype=bool)
    choice = score_questions(lm, setting.questions) if setting.questions else ChoiceScore(nothing_N, nothing_N)
    used = activated(lm.model, setting.measured)
    return Measured(used, text.nats_W, text.tokens_W, choice.right_N, choice.right_normalized_N)


@torch.inference_mode()
def seconds(models: Mapping[str, PreTrainedModel], ids: Sequence[int], repeats: int) -> Mapping[str, FloatArray]:
    """CPU seconds of each model to read the text, and to write one more token after it: (repeats, 2), all in turn. Time
    of the process's own threads: what others do on the machine does not count."""
    ids_1T = torch.tensor([list(ids)])
    taken: dict[str, list[list[float]]] = {name: [] for name in models}
    for repeat in range(repeats + 1):
        for name, model in models.items():
            start = time.process_time()
            read = model(input_ids=ids_1T, use_cache=True, logits_to_keep=1)
            middle = time.process_time()
            for _ in range(_WRITTEN_TOKENS):
                read = model(
                    input_ids=read.logits[:, -1:].argmax(-1), past_key_values=read.past_key_values, use_cache=True
                )
            if repeat:  # the first warms up
                taken[name].append([middle - start, (time.process_time() - middle) / _WRITTEN_TOKENS])
    return {name: np.array(rows) for name, rows in taken.items()}


def as_result(comparison: Comparison, seeds: Sequence[int], command: str, room: str = "dense_to_moe") -> Result:
    """Everything that `compare` measured, beside the paper's claim."""
    rows = [Row("quality", arm, _quality(comparison, arm)) for arm in ARMS]
    rows += [Row("differences", f"{OURS} against {arm}", _difference(comparison, arm)) for arm in ARMS if arm != OURS]
    rows += [
        Row(FRONTIER, f"{arm}: target {target:.0%}", _saved(comparison, point.activated, point.text))
        for arm, points in comparison.frontier.items()
        for target, point in sorted(points.items())
    ]
    rows += [Row("CPU time of one thread", arm, _time(comparison, arm)) for arm in comparison.seconds]
    result = Result(
        room=room,
        paper="LaDiMo (arXiv 2408.04278)",
        claim="with 100K tokens a dense model becomes a mixture that activates over 20 % fewer parameters, "
        "accuracy kept",
        verdict="",
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; of the text Student's over its windows, of accuracy Wilson's over the questions, of "
        "differences Student's over windows or questions, or over seeds where that is wider, of time, a median, by "
        "ranks of the repeats",
        machine=this_machine(threads=1),
    )
    return judge(result)


def _quality(comparison: Comparison, arm: str) -> dict[str, Figure]:
    seeds = comparison.arms[arm]
    text = TextScore(np.mean([one.nats_W for one in seeds], axis=0), seeds[0].tokens_W)  # each window's mean over seeds
    return {
        **_saved(comparison, float(np.mean([one.activated for one in seeds])), text),
        "accuracy, %": _share([one.right_N for one in seeds]),
        ACCURACY: _share([one.right_normalized_N for one in seeds]),
    }


def _saved(comparison: Comparison, activated: float, text: TextScore) -> dict[str, Figure]:
    return {
        "activated parameters, M": Figure(activated / 1e6),
        "saved, %": Figure(100 * (1 - activated / comparison.parameters)),
        "perplexity": text.perplexity_figure(),
        "nats a token": text.nats_figure(),
    }


def _share(right: Sequence[BoolArray]) -> Figure:
    """In percent. All seeds answer the same questions, so that the interval is that of one seed's number."""
    return wilson(float(np.mean(right)) * len(right[0]), len(right[0])).percent()


def _difference(comparison: Comparison, other: str) -> dict[str, Figure]:
    """What ours gains over another arm on the same windows and questions."""
    pairs = list(zip(comparison.arms[OURS], comparison.arms[other], strict=True))
    gain_SW = np.array([(theirs.nats_W - ours.nats_W) / ours.tokens_W for ours, theirs in pairs])
    right_SN = np.array([ours.right_normalized_N.astype(float) - theirs.right_normalized_N for ours, theirs in pairs])
    return {"gain, nats a token": _wider(gain_SW), "gain, points of normalized accuracy": _wider(100 * right_SN)}


def _wider(values_SX: FloatArray) -> Figure:
    """Mean with the wider of two intervals: over windows or questions, and over the seeds if there are several."""
    return wider(students_mean(values_SX.mean(0)), students_mean(values_SX.mean(1)))


def _time(comparison: Comparison, arm: str) -> dict[str, Figure]:
    taken, dense = comparison.seconds[arm], comparison.seconds[DENSE]
    figures = {}
    for column, name in enumerate(("read 256 tokens", "write one token")):
        figures[f"{name}, ms"] = median_by_ranks(1000 * taken[:, column])
        if arm != DENSE:
            figures[f"{name}: saved, %"] = median_by_ranks(100 * (1 - taken[:, column] / dense[:, column]))
    return figures


def plot_frontier(comparison: Comparison, path: Path) -> None:
    """A line for each arm that was traced and a dot for each other arm, all with the first seed, as a PNG."""
    with plot(path, 7, 4.2) as (axes,):
        for arm in ARMS:
            points = [comparison.arms[arm][0], *comparison.frontier.get(arm, {}).values()]
            if len(points) > 1:
                points.append(comparison.arms[DENSE][0])
            places = sorted((point.activated / 1e6, point.text.perplexity) for point in points)
            colour = "black" if arm == DENSE else None
            axes.plot(*zip(*places, strict=True), "o-", markersize=5, label=arm, color=colour)
        axes.set(xlabel="activated parameters of an average token, million", ylabel="perplexity", yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
