"""Three small models trained on a text of the visitor's, side by side, for about a minute."""

import html
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mofme.language.attention_router.live import SHORT, ShortRun, train_briefly
from mofme.language.attention_router.study import ROUTERS
from mofme.language.small_lm.vocabulary import Vocabulary
from mofme.ui.attention_router.choices import NAMES
from mofme.ui.jobs import Job
from mofme.ui.learning_curves import learning_curves

Report = Callable[[float, str], None]


def train_three(text: str, steps: int, job: Job, report: Report, vocabulary: Vocabulary | None = None) -> ShortRun:
    """Train every router for so many steps. Raises TableError for a text that is too short, MofmeError when the job is
    stopped or its time is up.
    """

    def learnt(router: str, step: int, steps: int, nats: float) -> None:
        share = (ROUTERS.index(router) + step / steps) / len(ROUTERS)
        report(share, f"{NAMES[router]} router: step {step} of {steps}, {nats:.2f} nats a token")

    def stopped() -> bool:
        job.check()
        return False

    report(0, f"{NAMES[ROUTERS[0]]} router: the first steps")
    return train_briefly(text, replace(SHORT, steps=steps), learnt, stopped, vocabulary)


def run_html(run: ShortRun) -> str:
    """Losses on what was held back, and the curves."""
    rows = "".join(
        f"<tr><td>{html.escape(NAMES[router])}</td><td>{run.losses[router][0]:.2f}</td><td>{score.nats:.3f}</td></tr>"
        for router, score in run.scores.items()
    )
    curves = learning_curves(
        "Loss while learning, nats a token", {NAMES[router]: losses for router, losses in run.losses.items()}
    )
    return (
        "<div class='table numbers'><table><tr><th>Router</th><th>At the first step</th><th>On the end held back</th>"
        f"</tr>{rows}</table></div><p class='note'>Nats a token. All begin alike and see the same batches. One seed "
        "and few steps: this shows how learning begins, not which router wins; the measured results below do.</p>"
        f"<div class='plots'>{curves}</div>"
    )


def run_values(run: ShortRun) -> dict[str, Any]:
    """The same for programs, in nats a token."""
    return {
        router: {"held_back": score.nats, "losses": [round(loss, 4) for loss in run.losses[router]]}
        for router, score in run.scores.items()
    }
