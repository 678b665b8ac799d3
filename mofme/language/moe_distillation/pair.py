"""The pair of the study: a mixture that teaches and a smaller dense student, trained from scratch on the same text.

A dense net that activates as many parameters as the teacher shows whether the teacher is a good one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from mofme.files import CARD_FILE
from mofme.language.small_lm import Shape, SmallLM, Vocabulary, load_lm, save_lm
from mofme.language.small_lm_training import Corpus, Plan, Stopped, score_passages, train

Role = Literal["teacher", "student", "dense"]
SHAPES: Mapping[Role, Shape] = {
    "teacher": Shape(1024, dim=96, layers=2, heads=4, hidden=192, router="linear", experts=8, top_k=2),
    "student": Shape(1024, dim=64, layers=1, heads=2, hidden=128, router="dense"),
    "dense": Shape(1024, dim=96, layers=2, heads=4, hidden=384, router="dense"),
}
_BALANCE = 0.01

Say = Callable[[str], None]


def trained(
    role: Role,
    corpus: Corpus,
    vocabulary: Vocabulary,
    folder: Path,
    steps: int,
    licence: str,
    say: Say,
    stopped: Stopped | None = None,
) -> SmallLM:
    """The model of this role, read from `folder` or else trained for it and written there."""
    if not (folder / CARD_FILE).is_file():
        model, plan = SmallLM(SHAPES[role]), Plan(steps, balance=_BALANCE if role == "teacher" else 0.0)
        train(
            model,
            corpus.learned_N,
            plan,
            lambda step, _, nats: say(f"{role}: step {step} of {steps}, {nats:.3f} nats"),
            stopped,
        )
        metrics = {name: score_passages(model, passages_PT).nats for name, passages_PT in corpus.held_back.items()}
        training = {"texts": list(corpus.held_back), "steps": steps, "tokens": steps * plan.batch * plan.context}
        save_lm(folder, model, vocabulary, licence, training, {"nats a token, held back": metrics})
    return load_lm(folder)[0]
