"""The six methods beside each other: the same student, the same prompts, steps and rate, several seeds.

Axis names: P passages, S samplings, L layers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from mofme.core.moe import activated_parameters, moe_layers, parameters
from mofme.language.causal_lm import SmallCausalLM
from mofme.language.moe_distillation.distillation import Plan, Progress, distil
from mofme.language.moe_distillation.methods import METHODS, Method
from mofme.language.moe_distillation.pair import Role, trained
from mofme.language.moe_distillation.passages import Passages, passages_in
from mofme.language.moe_distillation.quality import Quality, cross_entropy, measure
from mofme.language.moe_distillation.teaching import most_experts, non_activated_mass
from mofme.language.scoring import FloatArray
from mofme.language.small_lm import Vocabulary, load_lm
from mofme.language.small_lm_training import learned_parts, make_corpus
from mofme.measure.study import Study, fingerprint

_CONTEXT, _HELD_BACK = 128, 60  # tokens of a passage, passages of a text

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
    texts: Mapping[str, str],
    seeds: Sequence[int],
    plan: Plan,
    pair_steps: int,
    folder: Path,
    licence: str,
    say: Say,
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
        steps = pair_steps // 2 if role == "student" else pair_steps
        return SmallCausalLM(trained(role, corpus, vocabulary, place_of(role, folder), steps, licence, say), vocabulary)

    teacher, student, passages = model("teacher"), model("student"), passages_in(corpus)
    before = study.kept("before", Quality, lambda: measure(student, teacher, passages, plan.samplings))

    def arm(method: Method, seed: int) -> Quality:
        learner = SmallCausalLM(*load_lm(place_of("student", folder)))
        arm_plan = replace(plan, method=method, seed=seed)
        return distil(teacher, learner, passages, arm_plan, _teller(method, seed, say)).quality

    arms = {
        method: [study.kept(f"{method}-{seed}", Quality, partial(arm, method, seed)) for seed in seeds]
        for method in METHODS
    }
    candidates = _candidates(teacher, model("dense"), student, passages)
    mass_L = non_activated_mass(teacher, passages.held_out_PT).double().numpy()
    return Findings(candidates, before, arms, mass_L)


def place_of(role: Role, folder: Path) -> Path:
    """Where a model of the pair is kept."""
    return folder / f"distillation-{role}"


def _candidates(
    teacher: SmallCausalLM, dense: SmallCausalLM, student: SmallCausalLM, passages: Passages
) -> dict[str, Candidate]:
    return {
        "teacher": _candidate(teacher, passages, nullcontext()),
        "teacher, all experts but one": _candidate(teacher, passages, most_experts(teacher, spared=1), idle=1),
        "teacher, all experts": _candidate(teacher, passages, most_experts(teacher, spared=0), idle=0),
        "dense net that activates as much": _candidate(dense, passages, nullcontext()),
        "student": _candidate(student, passages, nullcontext()),
    }


def _candidate(
    model: SmallCausalLM, passages: Passages, routing: AbstractContextManager[None], idle: int | None = None
) -> Candidate:
    with routing:
        nats_P = cross_entropy(model, passages.held_out_PT, passages.prompt)
    layers = moe_layers(model.module).values()
    active_L = None if idle is None else [layer.router.num_experts - idle for layer in layers]
    return Candidate(nats_P, parameters(model.module), activated_parameters(model.module, active_L))


def _teller(method: Method, seed: int, say: Say) -> Callable[[Progress], None]:
    def tell(progress: Progress) -> None:
        if progress.held_out_kl is not None:
            step = f"step {progress.step} of {progress.steps}"
            say(f"{method}, seed {seed}: {step}, held-out KL {progress.held_out_kl:.4f}")

    return tell
