"""The pair of the study: a mixture that teaches and a smaller dense student, trained from scratch on the same text.

A dense net that activates as many parameters as the teacher shows whether the teacher is a good one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from mofme.core.model_card import CARD_FILE
from mofme.language.small_lm.corpus import Corpus
from mofme.language.small_lm.model import Shape, SmallLM
from mofme.language.small_lm.storage import load_lm, save_lm
from mofme.language.small_lm.training import Plan, Stopped, score_passages, train
from mofme.language.small_lm.vocabulary import Vocabulary

Role = Literal["teacher", "student", "dense"]
SHAPES: Mapping[Role, Shape] = {
    "teacher": Shape(1024, dim=96, layers=3, heads=4, hidden=192, router="linear", experts=8, top_k=2),
    "student": Shape(1024, dim=64, layers=2, heads=2, hidden=128, router="dense"),
    "dense": Shape(1024, dim=96, layers=3, heads=4, hidden=384, router="dense"),
}
PLANS: Mapping[Role, Plan] = {
    "teacher": Plan(steps=2400, balance=0.01),
    "student": Plan(steps=1200),
    "dense": Plan(steps=2400),
}

Say = Callable[[str], None]


def trained(
    role: Role,
    corpus: Corpus,
    vocabulary: Vocabulary,
    folder: Path,
    licence: str,
    say: Say,
    stopped: Stopped | None = None,
) -> SmallLM:
    """The model of this role, read from `folder` or else trained for it and written there."""
    if not (folder / CARD_FILE).is_file():
        model, plan = SmallLM(SHAPES[role], seed=0), PLANS[role]
        train(
            model,
            corpus.learned_N,
            plan,
            lambda step, steps, nats: say(f"{role}: step {step} of {steps}, {nats:.3f} nats"),
            stopped,
        )
        metrics = {name: score_passages(model, passages_PT).nats for name, passages_PT in corpus.held_back.items()}
        training = {"texts": list(corpus.held_back), "steps": plan.steps, "tokens": plan.steps * plan.batch * 128}
        save_lm(folder, model, vocabulary, licence, training, {"nats a token, held back": metrics})
    return load_lm(folder)[0]
