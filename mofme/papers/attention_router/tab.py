"""Tab Attention router: one text read by three models that differ in their router alone, and three trained side by
side.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np
from torch import Tensor

from mofme.ui.chart import learning_curves
from mofme.ui.html import Block, heat_grid, measured_box, numbered, table
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.typed_text import Reading, check_typed, read_text_box
from mofme.ui.uploads import file_box, read_own_text
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work

if TYPE_CHECKING:
    from mofme.language.small_lm import Vocabulary
    from mofme.papers.attention_router.models import Explanation, ShortRun

MEASURED = ("attention_router", "routers")
NAMES = {"linear": "Linear", "mlp": "MLP", "attention": "Attention"}

SENTENCE = (
    "An ordinary router scores every expert on its own; the attention router lets experts look at one another first, "
    "so that those are chosen who go well together. Three language models, alike but for the router, read your text: "
    "see whom each of them asks, and whether it pays."
)

EXAMPLES = (
    ("A story", "The old man looked at the sea for a long time. Then he took his boat and went out to fish again."),
    ("Physics", "The force on a body equals its mass times its acceleration, and points the same way."),
    ("A sum", "Tom has 12 apples. He gives 5 to Anna and buys 3 more. How many apples does he have now?"),
    ("Python", "def area(width, height):\n    return width * height\n\nprint(area(3, 4))"),
)

_SURPRISING = 6.0  # nats with the strongest colour


def _explain(text: str) -> "Explanation":
    from mofme.papers.attention_router.models import explain

    return explain(text)


def build(services: Services, explain: Callable[[str], "Explanation"] = _explain) -> None:
    """Draw the tab and connect it."""

    def checked(text: str) -> "Explanation":
        check_typed(text, services.limits.prompt_characters)
        return explain(text)

    gr.Markdown(SENTENCE, elem_classes="note")
    read_text_box(
        "attention",
        "attention-tokens",
        (
            "Type a few sentences",
            "How well each model reads the text, and how evenly it asks its experts, appears here.",
        ),
        EXAMPLES,
        checked,
        Reading(
            summary_html,
            lambda found: [f"Layer {number}" for number in numbered(_layers(found))],
            lambda found: _layers(found) - 1,
            layer_html,
        ),
        Endpoint(
            "attention_router",
            "What three small language models with linear, MLP and attention routers make of a text: tokens, weights "
            "(layer, token, expert), loads, the loss of every token but the first, and the attention router's map "
            "(layer, expert, expert listened to).",
            {"explanation": gr.JSON},
            explained_values,
        ),
    )
    _training_box(services)
    measured_box(*MEASURED)


def _training_box(services: Services) -> None:
    """The fold-out, closed, in which a visitor trains three small models side by side on a text."""
    with gr.Accordion("Train them yourself", open=False, elem_id="own-attention"), gr.Row():
        with gr.Column(scale=4, min_width=320):
            text = file_box(label="A text of your own (TXT)", file_types=[".txt"], height=140)
            gr.Markdown(
                "At least 40,000 characters, about 20 pages. Without one, A Midsummer Night's Dream is read.",
                elem_classes="note",
            )
            steps = gr.Slider(
                20, 600, value=150, step=10, label="Steps", info="150 take about a minute for all three routers."
            )
            buttons = start_and_cancel("Train", "attention-train")
        with gr.Column(scale=6, min_width=320):
            status = status_box("How the three models learn appears here.", "attention-training")

    work(
        lambda job, path, steps: train_three(read_own_text(path), int(steps), job),
        [text, steps],
        {status: run_html},
        buttons,
        status,
        services.limits.training_seconds,
        Endpoint(
            "train_attention_router",
            "Train small language models with a linear, an MLP and an attention router on a text file, or without one "
            "on a play by Shakespeare. Returns losses in nats a token: of every step, and on the end held back.",
            {"trained": gr.JSON},
            run_values,
        ),
    )


def summary_html(explanation: "Explanation") -> str:
    """What the text cost each model, and how evenly it used its experts."""
    heads = ("Router", "Loss, nats a token", "As if choosing among", "Evenness of load")
    nats = {name: float(one.nats_T.double().mean()) for name, one in explanation.routers.items()}
    rows = [
        (NAMES[name], f"{nats[name]:.3f}", f"{math.exp(nats[name]):,.0f}", f"{np.mean(one.entropy_L):.3f}")
        for name, one in explanation.routers.items()
    ]
    best = min(nats, key=lambda name: nats[name])
    return (
        f"<p class='choice'>Surprised least: the model with the router <b>{NAMES[best]}</b></p>"
        f"{table(heads, rows)}<p class='note'>On these {len(explanation.tokens)} tokens. One short text cannot tell "
        "routers apart: the measured results below do. Evenness: 1 when all experts are asked equally often, 0 when it "
        "is always one.</p>"
    )


def layer_html(explanation: "Explanation", place: int) -> str:
    """One layer: who listens to whom, how often each expert is asked, and token by token the weights and the loss."""
    routers = explanation.routers
    load_RE = np.array([one.load_LE[place].numpy() for one in routers.values()])
    experts = numbered(load_RE.shape[1])
    load = heat_grid(
        "Router", [NAMES[name] for name in routers], [Block("expert", experts, load_RE, most=float(load_RE.max()))]
    )
    maps = [one.attention_LEE[place].numpy() for one in routers.values() if one.attention_LEE is not None]
    # The first token follows nothing: it has no loss.
    nats_TR = np.stack([np.concatenate([[np.nan], one.nats_T.numpy()]) for one in routers.values()], axis=1)
    blocks = [
        Block("loss", [NAMES[name][:3] for name in routers], nats_TR, most=_SURPRISING, scale=1, digits=1),
        *(Block(NAMES[name], experts, one.weights_LTE[place].numpy()) for name, one in routers.items()),
    ]
    return (
        f"<div class='plots'><div><h2>How often each expert is asked, %</h2>{load}</div>"
        f"{''.join(map(_map_html, maps))}</div>"
        f"<h2>Token by token</h2><p class='note'>Loss: how surprising the token was, in nats. Then the weights of the "
        "experts that read it, in percent; an expert's number means nothing from one model to another.</p>"
        f"{heat_grid('Token', [visible(token) for token in explanation.tokens], blocks)}"
    )


def explained_values(explanation: "Explanation") -> dict[str, Any]:
    """The same for programs: weights from 0 to 1, losses in nats of every token but the first."""
    return {
        "tokens": list(explanation.tokens),
        "routers": {
            name: {
                "weights": _plain(one.weights_LTE),
                "load": _plain(one.load_LE),
                "load_entropy": [round(value, 4) for value in one.entropy_L],
                "nats": _plain(one.nats_T),
                "attention": None if one.attention_LEE is None else _plain(one.attention_LEE),
            }
            for name, one in explanation.routers.items()
        },
    }


def visible(token: str) -> str:
    """A token with its blanks to be seen."""
    return token.replace("\n", "↵").replace(" ", "·") or "·"


def _map_html(map_EE: np.ndarray[Any, Any]) -> str:
    names = numbered(len(map_EE))
    grid = heat_grid("Expert", names, [Block("takes from", names, map_EE, most=float(map_EE.max()))])
    return (
        f"<div><h2>Whom each expert listens to, %</h2>{grid}<p class='note'>In the attention router: of what the score "
        "of each expert is made, all tokens together. An even grid would mean that nobody is preferred.</p></div>"
    )


def train_three(text: str, steps: int, job: Job, vocabulary: "Vocabulary | None" = None) -> "ShortRun":
    """Train every router for so many steps. Raises TableError for a text that is too short, MofmeError when the job is
    stopped or its time is up.
    """
    from mofme.papers.attention_router.models import ROUTERS, SHORT, train_briefly

    def learnt(router: str, step: int, steps: int, nats: float) -> None:
        share = (ROUTERS.index(router) + step / steps) / len(ROUTERS)
        job.report(share, f"{NAMES[router]} router: step {step} of {steps}, {nats:.2f} nats a token")

    def stopped() -> bool:
        job.check()
        return False

    job.report(0, f"{NAMES[ROUTERS[0]]} router: the first steps")
    return train_briefly(text, replace(SHORT, steps=steps), learnt, stopped, vocabulary)


def run_html(run: "ShortRun") -> str:
    """Losses on what was held back, and the curves."""
    heads = ("Router", "At the first step", "On the end held back")
    rows = [
        (NAMES[router], f"{run.losses[router][0]:.2f}", f"{score.nats:.3f}") for router, score in run.scores.items()
    ]
    curves = learning_curves(
        "Loss while learning, nats a token", {NAMES[router]: losses for router, losses in run.losses.items()}
    )
    return (
        f"{table(heads, rows)}<p class='note'>Nats a token. All begin alike and see the same batches. One seed "
        "and few steps: this shows how learning begins, not which router wins; the measured results below do.</p>"
        f"<div class='plots'>{curves}</div>"
    )


def run_values(run: "ShortRun") -> dict[str, Any]:
    """The same for programs, in nats a token."""
    return {
        router: {"held_back": score.nats, "losses": [round(loss, 4) for loss in run.losses[router]]}
        for router, score in run.scores.items()
    }


def _layers(explanation: "Explanation") -> int:
    return len(next(iter(explanation.routers.values())).weights_LTE)


def _plain(values: Tensor) -> Any:
    return values.double().numpy().round(4).tolist()
