"""The six methods beside each other: the same student, the same prompts, steps and rate, several seeds.

The pair is a mixture that teaches and a smaller dense student, trained from scratch on the same text. A dense net that
activates as many parameters as the teacher shows whether the teacher is a good one.
Axis names: P passages, S samplings or seeds, L layers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from mofme.core.moe import activated_parameters, moe_layers, parameters
from mofme.files import CARD_FILE
from mofme.language.pretrained import SmallCausalLM
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm, save_lm
from mofme.language.small_lm_training import Corpus, learned_parts, make_corpus, score_passages, train
from mofme.language.small_lm_training import Plan as PairPlan
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, bootstrap, students_mean, wider
from mofme.measure.study import Study, fingerprint
from mofme.papers.moe_distillation import METHODS, Method, judge
from mofme.papers.moe_distillation.distillation import Plan, Progress, distil, most_experts, non_activated_mass
from mofme.papers.moe_distillation.quality import Passages, Quality, cross_entropy, measure, passages_in

Role = Literal["teacher", "student", "dense"]
SHAPES: Mapping[Role, Shape] = {
    "teacher": Shape(1024, dim=96, layers=2, heads=4, hidden=192, router="linear", experts=8, top_k=2),
    "student": Shape(1024, dim=64, layers=1, heads=2, hidden=128, router="dense"),
    "dense": Shape(1024, dim=96, layers=2, heads=4, hidden=384, router="dense"),
}
_BALANCE = 0.01
_CONTEXT, _HELD_BACK = 128, 60  # tokens of a passage, passages of a text
# Each measure, what a gain in it is called and which sign it has, and what it is on every passage.
_MEASURES: tuple[tuple[str, str, int, Callable[[Quality], FloatArray]], ...] = (
    ("KL on held-out text, nats", "gain, KL on held-out text", -1, lambda one: one.kl_P),
    ("KL on its own text, nats", "gain, KL on its own text", -1, lambda one: one.own_kl_SP.mean(0)),
    ("cross-entropy, nats", "gain, cross-entropy", -1, lambda one: one.cross_entropy_P),
    ("ROUGE-L, %", "gain, ROUGE-L, points", 1, lambda one: 100 * one.rouge_l_SP.mean(0)),
)
_COMPARED: dict[Method, tuple[Method, ...]] = {"ka": ("gkd", "all", "top-(n-1)"), "sar": ("gkd", "all"), "gkd": ("kd",)}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A model before any distillation: cross-entropy of what follows each held-out prompt, and its size."""

    cross_entropy_P: FloatArray
    parameters: int
    activated: float


@dataclass(frozen=True)
class Findings:
    """All that was measured: models by name, the student that all arms begin with, each arm's quality seed by seed."""

    candidates: Mapping[str, Candidate]
    before: Quality
    arms: Mapping[Method, Sequence[Quality]]
    non_activated_L: FloatArray


def compare(
    texts: Mapping[str, str], seeds: Sequence[int], plan: Plan, pair_steps: int, folder: Path, licence: str, say: Say
) -> Findings:
    """Train the pair (the student half of `pair_steps`), distil by every method with every seed, and measure.

    `plan` says how, but for method and seed. `folder` keeps what is finished: stopped and called again with the same
    arguments it goes on from there. Raises TableError for a text that is too short, ModelError if `folder` holds a
    study with another setting.
    """
    vocabulary = Vocabulary.learn(learned_parts(list(texts.values())), 1024)
    corpus = make_corpus(texts, vocabulary, _CONTEXT, _HELD_BACK)
    shared = {name: value for name, value in asdict(plan).items() if name not in ("method", "seed")}
    told = {"texts": {name: fingerprint(text) for name, text in texts.items()}, "pair_steps": pair_steps, **shared}
    study = Study(folder, told)

    def model(role: Role) -> SmallCausalLM:
        place, steps = folder / f"distillation-{role}", pair_steps // 2 if role == "student" else pair_steps
        _train_unless_there(place, role, corpus, vocabulary, steps, licence, say)
        return SmallCausalLM(*load_lm(place))

    teacher, student, passages = model("teacher"), model("student"), passages_in(corpus)
    before = study.kept("before", Quality, lambda: measure(student, teacher, passages, plan.samplings))

    def arm(method: Method, seed: int) -> Quality:
        def tell(progress: Progress) -> None:
            if progress.held_out_kl is not None:
                step = f"step {progress.step} of {progress.steps}"
                say(f"{method}, seed {seed}: {step}, held-out KL {progress.held_out_kl:.4f}")

        return distil(teacher, model("student"), passages, replace(plan, method=method, seed=seed), tell).quality

    arms = {
        method: [study.kept(f"{method}-{seed}", Quality, partial(arm, method, seed)) for seed in seeds]
        for method in METHODS
    }
    candidates = {
        "teacher": _candidate(teacher, passages),
        "teacher, all experts but one": _candidate(teacher, passages, idle=1),
        "teacher, all experts": _candidate(teacher, passages, idle=0),
        "dense net that activates as much": _candidate(model("dense"), passages),
        "student": _candidate(student, passages),
    }
    mass_L = non_activated_mass(teacher, passages.held_out_PT).double().numpy()
    return Findings(candidates, before, arms, mass_L)


def _train_unless_there(
    folder: Path, role: Role, corpus: Corpus, vocabulary: Vocabulary, steps: int, licence: str, say: Say
) -> None:
    if (folder / CARD_FILE).is_file():
        return

    def tell(step: int, _: int, nats: float) -> None:
        say(f"{role}: step {step} of {steps}, {nats:.3f} nats")

    model, plan = SmallLM(SHAPES[role]), PairPlan(steps, balance=_BALANCE if role == "teacher" else 0.0)
    train(model, corpus.learned_N, plan, tell)
    metrics = {name: score_passages(model, passages_PT).nats for name, passages_PT in corpus.held_back.items()}
    training = {"texts": list(corpus.held_back), "steps": steps, "tokens": steps * plan.batch * plan.context}
    save_lm(folder, model, vocabulary, licence, training, {"nats a token, held back": metrics})


def _candidate(model: SmallCausalLM, passages: Passages, idle: int | None = None) -> Candidate:
    """As it is, or with all its experts but so many."""
    with nullcontext() if idle is None else most_experts(model, idle):
        nats_P = cross_entropy(model, passages.held_out_PT, passages.prompt)
    layers = moe_layers(model.module).values()
    active_L = None if idle is None else [layer.router.num_experts - idle for layer in layers]
    return Candidate(nats_P, parameters(model.module), activated_parameters(model.module, active_L))


def as_result(found: Findings, seeds: Sequence[int], command: str) -> Result:
    """Everything that `compare` measured, beside the paper's claim."""
    rows = [Row("models", name, _model(one, found)) for name, one in found.candidates.items()]
    before = {name: Figure(float(of(found.before).mean())) for name, _, _, of in _MEASURES}
    rows += [Row("students", "before", before), *(Row("students", one, _arm(found.arms[one])) for one in METHODS)]
    rows += [
        Row("differences", f"{one} against {other}", _difference(found, one, other))
        for one, others in _COMPARED.items()
        for other in others
    ]
    rows += [
        Row("idle experts", f"layer {number}", {"share of the router's probability, %": Figure(100 * float(mass))})
        for number, mass in enumerate(found.non_activated_L)
    ]
    result = Result(
        room="moe_distillation",
        paper="Every Expert Matters (arXiv 2502.12947)",
        claim="experts that a teacher leaves idle hold knowledge a student can use: KA and SAR beat GKD",
        verdict="",
        command=command,
        rows=rows,
        seeds=list(seeds),
        interval="95 %; of models a bootstrap over held-out passages, of students Student's over the seeds, of "
        "differences a paired bootstrap over passages, or Student's over the seeds where that is wider",
        machine=this_machine(threads=1),
    )
    return judge(result)


def _model(one: Candidate, found: Findings) -> dict[str, Figure]:
    student_P = found.candidates["student"].cross_entropy_P
    figures = {
        "parameters, M": Figure(one.parameters / 1e6),
        "activated, M": Figure(one.activated / 1e6),
        "cross-entropy, nats": bootstrap(one.cross_entropy_P),
    }
    if one is not found.candidates["student"]:
        figures["gain over the student, nats"] = bootstrap(student_P - one.cross_entropy_P)
    return figures


def _arm(seeds: Sequence[Quality]) -> dict[str, Figure]:
    return {name: students_mean(np.array([float(of(one).mean()) for one in seeds])) for name, _, _, of in _MEASURES}


def _difference(found: Findings, one: Method, other: Method) -> dict[str, Figure]:
    """What `one` gains over `other` on the same passages with the same seeds; above 0 it is better."""
    pairs = list(zip(found.arms[one], found.arms[other], strict=True))
    figures = {}
    for _, name, sign, of in _MEASURES:
        gain_SP = sign * np.array([of(mine) - of(theirs) for mine, theirs in pairs])
        figures[name] = wider(bootstrap(gain_SP.mean(0)), students_mean(gain_SP.mean(1)))
    return figures
