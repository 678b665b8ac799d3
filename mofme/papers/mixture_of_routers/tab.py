"""Tab Mixture of routers: a typed text, how the sub-routers vote word by word, and routers trained side by side."""

import functools
import html
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mofme.core.training import StepReport
from mofme.errors import MofmeError, TableError
from mofme.language.tables.columns import TABLE_SUFFIXES, column_names
from mofme.measure.result import Figure
from mofme.measure.statistics import wilson
from mofme.ui.chart import learning_curves
from mofme.ui.html import Block, bars, heat_grid, measured_box, numbered, table
from mofme.ui.limits import Limits
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.typed_text import Reading, check_typed, read_text_box
from mofme.ui.uploads import file_box
from mofme.ui.work import Endpoint, start_and_cancel, status_box, work

if TYPE_CHECKING:
    from mofme.papers.mixture_of_routers.model import Explained, LoraMixture
    from mofme.papers.mixture_of_routers.training import Measured, Task

MEASURED = ("mixture_of_routers",)

SENTENCE = (
    "In a mixture of experts a router decides who reads which word, and a wrong choice cannot be mended later. Here "
    "several small routers vote, and a main one weighs their votes: see where they agree, and whether it helps."
)

EXAMPLES = (
    ("A sum", "A train covers 120 miles in 3 hours. How far does it come in 5 hours at the same speed?"),
    ("Physics", "What force keeps a satellite of 500 kg on a circle around the Earth at a height of 300 km?"),
    ("Law", "Can a contract be void if one party was a minor when it was signed? Name the exceptions."),
    ("Health", "Which vitamin is lacking when gums bleed and wounds heal slowly?"),
    ("Between two", "How did the silver mines of Potosi change prices in Spain in the sixteenth century?"),
)

# Routers that a visitor may train beside one another, with the recipe's router and number of sub-routers.
ONE, WIDE, TWO, FOUR = "One router", "One wider router", "Mixture of 2", "Mixture of 4"
ARMS: dict[str, tuple[str, int]] = {ONE: ("single", 1), WIDE: ("wide", 2), TWO: ("mixture", 2), FOUR: ("mixture", 4)}

_MARKS = {"[CLS]": "(start)", "[SEP]": "(end)"}
_SHOWN = 4  # answers
_READING = 0.2  # share of the work


@functools.cache
def shipped_mixture() -> "LoraMixture":
    """The shipped mixture, read when it is first asked for. Raises ModelError if it is missing or damaged."""
    from mofme.papers.mixture_of_routers.model import LoraMixture

    return LoraMixture.from_pretrained()


def build(services: Services, mixture: Callable[[], "LoraMixture"] = shipped_mixture) -> None:
    """Draw the tab and connect it."""

    def explain(text: str) -> "Explained":
        check_typed(text, services.limits.prompt_characters)
        return mixture().explain(text)

    gr.Markdown(SENTENCE, elem_classes="note")
    read_text_box(
        "mixture",
        "mixture-words",
        ("Type a request", "What kind of text it is, and whether the routers agree, appears here."),
        EXAMPLES,
        explain,
        Reading(summary_html, lambda found: [layer_name(one.name) for one in found.layers], telling_layer, layer_html),
        Endpoint(
            "mixture_of_routers",
            "What the shipped mixture of routers makes of a text: its class, the tokens, and in every layer the votes "
            "of the sub-routers (router, token, expert), the main router's shares (token, router), the mixed "
            "probabilities and the experts' weights (token, expert).",
            {"explanation": gr.JSON},
            explained_values,
        ),
    )
    _training_box(services)
    measured_box(*MEASURED)


def _training_box(services: Services) -> None:
    """The fold-out, closed, in which a visitor trains routers side by side on texts with classes."""
    limits = services.limits
    with gr.Accordion("Train one yourself", open=False, elem_id="own-mixture"), gr.Row():
        with gr.Column(scale=4, min_width=320):
            texts = file_box(label="Texts of your own (CSV)", file_types=[*TABLE_SUFFIXES], height=140)
            gr.Markdown(
                f"A CSV, as Excel saves it, holds `text` and `label`; up to {limits.table_prompts:,} texts are used. "
                "Without one, our 196 prompts of seven kinds are. Near-duplicates are never on both sides when a fifth "
                "is held back.",
                elem_classes="note",
            )
            arms = gr.CheckboxGroup(list(ARMS), value=[ONE, TWO], label="Routers", elem_id="mixture-arms")
            steps = gr.Slider(20, 300, value=60, step=10, label="Steps", info="About a minute for two routers at 60.")
            buttons = start_and_cancel("Train", "mixture-train")
        with gr.Column(scale=6, min_width=320):
            status = status_box("All begin alike and learn from the same texts in the same order.", "mixture-training")

    def train(job: Job, path: str | None, arms: Sequence[str], steps: float) -> "Trained":
        if not arms:
            raise MofmeError("Choose at least one router.")
        job.report(0, "Reading the texts")
        return train_arms(read_texts(path, limits), [name for name in ARMS if name in arms], int(steps), job)

    work(
        train,
        [texts, arms, steps],
        {status: trained_html},
        buttons,
        status,
        limits.training_seconds,
        Endpoint(
            "train_mixture_of_routers",
            "Train routers side by side on a CSV of text and label, or without one on our own prompts. Returns "
            "accuracies on texts held back, in percent, loads and losses.",
            {"trained": gr.JSON},
            trained_values,
        ),
    )


def layer_name(name: str) -> str:
    """As it stands at the beginning of a line."""
    return name[:1].upper() + name[1:]


def telling_layer(explained: "Explained") -> int:
    """The layer in which the sub-routers differ most."""
    return int(np.argmax([layer.divergence for layer in explained.layers]))


def summary_html(explained: "Explained") -> str:
    """The answer, and in each layer how far the sub-routers agree and how much each counts."""
    order = np.argsort(-explained.probabilities_C, kind="stable")[:_SHOWN].tolist()
    answers = bars({explained.labels[place]: float(explained.probabilities_C[place]) for place in order})
    routers = len(explained.layers[0].weights_STE)
    return (
        f"<p class='note'>It tells {len(explained.labels)} kinds of text apart.</p>"
        f"<p class='choice'>It reads this as <b>{html.escape(explained.answer)}</b></p>{answers}"
        f"<h2>Do the sub-routers agree?</h2><p>{_agreement(explained, routers)}</p>{_layers_table(explained)}"
    )


def layer_html(explained: "Explained", place: int) -> str:
    """One layer: how much each expert was asked, and word by word the votes and what came of them."""
    layer = explained.layers[place]
    routers, experts = layer.weights_STE.shape[0], layer.weights_TE.shape[1]
    # Votes are spread over many experts: the largest of the layer has the strongest colour.
    most = float(layer.weights_STE.max())
    blocks = [
        Block("main router", numbered(routers), layer.shares_TS),
        *(
            Block(f"sub-router {number}", numbered(experts), votes_TE, most=most)
            for number, votes_TE in enumerate(layer.weights_STE, start=1)
        ),
        Block("what the experts get", numbered(experts), layer.weights_TE),
    ]
    words = [_MARKS.get(token, token) for token in explained.tokens]
    load = {f"Expert {expert}": float(share) for expert, share in enumerate(layer.weights_TE.mean(0), start=1)}
    return (
        f"<h2>Weight of each expert, all words together</h2><div style='max-width: 40rem'>{bars(load)}</div>"
        f"<h2>Word by word, %</h2><p class='note'>Main router: how much the vote of each sub-router counts. "
        f"Sub-routers: how they divide their vote among the {experts} experts. Last: the experts that are really "
        f"asked, and with what weight.</p>{heat_grid('Word', words, blocks)}"
    )


def explained_values(explained: "Explained") -> dict[str, Any]:
    """The same for programs: probabilities and weights from 0 to 1, four digits."""

    def plain(values: np.ndarray[Any, Any]) -> Any:
        return values.round(4).tolist()

    return {
        "answer": explained.answer,
        "probabilities": dict(zip(explained.labels, plain(explained.probabilities_C), strict=True)),
        "agreement": round(explained.agreement, 4),
        "divergence": round(explained.divergence, 4),
        "tokens": list(explained.tokens),
        "layers": [
            {
                "name": layer.name,
                "agreement": round(layer.agreement, 4),
                "divergence": round(layer.divergence, 4),
                "sub_routers": plain(layer.weights_STE),
                "shares": plain(layer.shares_TS),
                "mixed": plain(layer.mixed_TE),
                "weights": plain(layer.weights_TE),
            }
            for layer in explained.layers
        ],
    }


def _agreement(explained: "Explained", routers: int) -> str:
    if routers == 1:
        return "There is only one: nobody to disagree with."
    all_of_them = "both" if routers == 2 else f"all {routers}"
    return (
        f"For <b>{100 * explained.agreement:.0f} %</b> of the words {all_of_them} would ask the same expert first. "
        f"Their votes differ by {100 * explained.divergence:.0f} % (0 % the same, 100 % nothing in common)."
    )


def _layers_table(explained: "Explained") -> str:
    layers = explained.layers
    same, differ = (np.array([[getattr(one, name)] for one in layers]) for name in ("agreement", "divergence"))
    counts = np.stack([one.shares_TS.mean(0) for one in layers])
    blocks = [
        Block("same first expert, %", [""], same, zeros=True),
        Block("votes differ, %", [""], differ, digits=1, zeros=True),
        Block("counts in the sum, % of sub-router", numbered(counts.shape[1]), counts),
    ]
    return heat_grid("Layer", [layer_name(layer.name) for layer in layers], blocks)


@dataclass(frozen=True)
class Arm:
    """One router after training: the loss of every step, how it does on texts held back, parameters trained."""

    name: str
    losses: Sequence[float]
    measured: "Measured"
    parameters: int

    @property
    def accuracy(self) -> Figure:
        """Percent of the texts held back, with Wilson's 95 % interval."""
        right_N = self.measured.right_N
        return wilson(int(right_N.sum()), len(right_N)).percent()


@dataclass(frozen=True)
class Trained:
    """All arms on one task, beside the percentage that the encoder gets right with the head that all begin with."""

    task: "Task"
    arms: tuple[Arm, ...]
    without_experts: float

    @property
    def guess(self) -> float:
        """Percent of the texts held back that are of the most frequent class."""
        return 100 * float(np.bincount(self.task.test.label_N).max()) / len(self.task.test.label_N)


def read_texts(path: str | None, limits: Limits) -> "Task":
    """A visitor's CSV with the columns `text` and `label`; without one the prompts of seven kinds that ship.

    Raises TableError, naming what is wrong with the file.
    """
    from mofme.language.sentence_encoder import SentenceEncoder
    from mofme.papers.mixture_of_routers.training import own_task, read_task

    encoder = SentenceEncoder(remember=False)  # a visitor's texts leave no trace
    if path is None:
        return own_task(encoder)
    file = Path(path)
    if file.stat().st_size > limits.table_megabytes * 1e6:
        raise TableError(f"{file.name} is larger than the limit of {limits.table_megabytes:g} MB.")
    if missing := {"text", "label"} - set(column_names(file)):
        raise TableError(f"{file.name} lacks {', '.join(sorted(missing))}: its first line names the columns.")
    return read_task(file, encoder, limits.table_prompts)


def train_arms(task: "Task", arms: Sequence[str], steps: int, job: Job) -> Trained:
    """Train every arm of ARMS that is named: the same beginning, texts and steps, only the router differs.

    Raises MofmeError when the job is stopped or its time is up.
    """
    from mofme.papers.mixture_of_routers.lora import LAST, Recipe, lowest_block
    from mofme.papers.mixture_of_routers.training import Plan, measure, prepare, train, trained_parameters

    def read(done: int, total: int) -> None:
        job.report(_READING * done / total, "Reading the texts")

    prepared = prepare(task, lowest_block(Recipe(LAST)), read)
    trained: list[Arm] = []
    for name in arms:
        losses: list[float] = []

        def learnt(done: StepReport, name: str = name, losses: list[float] = losses) -> None:
            losses.append(done.loss)
            share = (len(trained) + done.step / done.steps) / len(arms)
            words = f"{name}: step {done.step} of {done.steps}, {done.loss:.2f} nats"
            job.report(_READING + (1 - _READING) * share, words)

        classifier = train(Plan(prepared, Recipe(LAST, *ARMS[name]), steps=steps), learnt)
        trained.append(Arm(name, losses, measure(classifier, prepared.test), trained_parameters(classifier)))
    without = 100 * float(prepared.right_without_banks(prepared.test).mean())
    return Trained(task, tuple(trained), without)


def trained_html(trained: "Trained") -> str:
    """How the arms did on texts held back, and how they learnt."""
    texts = len(trained.task.test.texts)
    heads = ("Router", f"Right, % of {texts} texts held back", "Uneven load", "Parameters trained")
    rows = [
        (arm.name, arm.accuracy.text(digits=0), f"{arm.measured.load:.2f}", f"{arm.parameters:,}")
        for arm in trained.arms
    ]
    curves = learning_curves("Loss while learning, nats", {arm.name: arm.losses for arm in trained.arms})
    return (
        f"{table(heads, rows)}<p class='note'>Without any experts {trained.without_experts:.0f} % are right, and "
        f"{trained.guess:.0f} % by always naming the most frequent class. Intervals: Wilson's, 95 %. Uneven load: 0 is "
        "even. One seed, and few texts: where intervals overlap, no router is shown to be better; the measured results "
        f"below tell more.</p><div class='plots'>{curves}</div>"
    )


def trained_values(trained: "Trained") -> dict[str, Any]:
    """The same for programs, accuracies in percent."""
    return {
        "labels": list(trained.task.labels),
        "test_texts": len(trained.task.test.texts),
        "most_frequent_class": trained.guess,
        "without_experts": trained.without_experts,
        "routers": {
            arm.name: {
                "accuracy": asdict(arm.accuracy),
                "load_variation": arm.measured.load,
                "parameters": arm.parameters,
                "losses": [round(loss, 4) for loss in arm.losses],
            }
            for arm in trained.arms
        },
    }
