"""Tab LLM routing: a prompt in, the model to ask out; and a router of the visitor's own from a table of answers."""

import html
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError, TableError
from mofme.language.tables.columns import TABLE_SUFFIXES
from mofme.ui.chart import cost_plot
from mofme.ui.html import bar, cell, measured_box, table
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.typed_text import check_typed, on_text, text_and_examples
from mofme.ui.uploads import KEEP_SECONDS, file_box
from mofme.ui.work import AT_ONCE, Endpoint, offer, shows, start_and_cancel, status_box, work

if TYPE_CHECKING:
    from mofme.papers.carrot.tab_own import OwnRouter
    from mofme.papers.carrot.trained_router import Routed, TrainedRouter

MEASURED = ("llm_routing", "llm_serving")

# A label and a prompt each.
EXAMPLES = (
    ("A fact", "Which planet of the solar system has the most moons?"),
    ("Arithmetic", "A train leaves at 9:40 and arrives at 13:05. It stops for 25 minutes. How long does it move?"),
    ("Python", "Write a Python function that returns the longest palindrome in a string, with tests."),
    ("Proof", "Prove that there are infinitely many primes of the form 4k + 3."),
    ("Law", "Can a contract be void if one party was a minor when it was signed? Name the exceptions."),
    ("Common sense", "The trophy does not fit into the suitcase because it is too large. What is too large?"),
)

WEIGHT, BUDGET, QUALITY = WAYS = ("Quality or cost", "Budget", "Least quality")

_ESTIMATORS = [("Nearest neighbours", "knn"), ("Straight lines", "linear"), ("Everything together", "ensemble")]

_EXAMPLE = """
    prompt,task,quality:small,cost:small,quality:large,cost:large
    What is 2 + 2?,arithmetic,1,0.00001,1,0.0004
    Prove it.,logic,0,0.00002,0.8,0.0009
"""

# Most changes of choice lie at small weights of cost: the slider gives them room.
_POWER = 3
_FAR = 0.35  # cosine; unrelated sentences seldom come closer
_SHOWN = 200  # characters of a known prompt


def route_by(
    router: "TrainedRouter", prompt: str, way: str, weight: float, budget: float | None, least: float
) -> "Routed":
    """By the one widget that `way` names: `weight` from 0 (quality only) to 1 (cost only), `budget` in dollars per
    1,000 prompts, `least` in percent.
    """
    if way == BUDGET:
        return router.route(prompt, budget=(budget or 0) / 1000)
    if way == QUALITY:
        return router.route(prompt, quality=least / 100)
    return router.route(prompt, cost_weight=weight**_POWER)


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            prompt, examples = text_and_examples(
                "Your prompt", "What would you ask a language model?", EXAMPLES, ("prompt", "prompts"), lines=5
            )
            way = gr.Radio(WAYS, value=WEIGHT, label="Choose by", elem_id="way")
            weight = gr.Slider(
                0, 1, value=0.5, step=0.01, label="What matters", info="Left: quality. Right: cost.", elem_id="weight"
            )
            budget = gr.Number(
                0.1, minimum=0, step=0.01, label="Budget", info="Dollars per 1,000 prompts like this.", visible=False
            )
            least = gr.Slider(
                0, 100, value=70, step=1, label="Least quality, %", info="The cheapest that reaches it.", visible=False
            )
            start = gr.Button("Choose a model", variant="primary", elem_id="route")
        with gr.Column(scale=6, min_width=320):
            answer = status_box(
                "Which model to ask, and what to expect of the others, appears here. Nothing is sent to any of them.",
                "answer",
                120,
            )
    own = gr.State(None, time_to_live=KEEP_SECONDS)
    _table_box(services, own)
    measured_box(*MEASURED)

    def route(
        prompt: str, way: str, weight: float, budget: float | None, least: float, own: "OwnRouter | None" = None
    ) -> tuple["Routed", str]:
        check_typed(prompt, services.limits.prompt_characters, "prompt")
        router = own.router if own else services.prompt_router()
        return route_by(router, prompt, way, weight, budget, least), _knows(router, own is not None)

    dial = [way, weight, budget, least]
    shown = shows(route, [prompt, *dial, own], {answer: lambda routed: answer_html(*routed)}, answer, "route")

    def again(prompt: str, *dial: Any) -> Any:
        """As soon as there is a prompt, whatever is changed shows at once."""
        return shown["fn"](prompt, *dial) if prompt.strip() else gr.skip()

    on_text(start, prompt, examples, show_progress="minimal", **shown)
    way.change(lambda way: [gr.update(visible=way == one) for one in WAYS], way, [weight, budget, least], **AT_ONCE)
    changes = [way.change, weight.change, budget.change, least.change, own.change]
    gr.on(changes, **{**shown, "fn": again}, show_progress="hidden", trigger_mode="always_last")
    # While the visitor types, the router is read.
    prompt.focus(
        lambda: _warm_up(services),
        show_progress="hidden",
        concurrency_limit=1,
        concurrency_id="route",
        api_visibility="private",
    )
    offer(
        Endpoint(
            "route",
            "Choose a language model for a prompt. way: 'Quality or cost' by weight, 'Budget' by budget in dollars per "
            "1,000 prompts, 'Least quality' by least in percent. Costs in the answer are dollars a prompt.",
            {"answer": gr.JSON},
            lambda routed: routed[0].as_json(),
        ),
        route,
        [prompt, *dial],
        "route",
    )


def _table_box(services: Services, own: gr.State) -> None:
    """The fold-out, closed, in which a visitor loads a table of models' answers and has a router trained on it; `own`
    holds what comes of it (OwnRouter).
    """
    limits = services.limits
    with gr.Accordion("Load your own table", open=False, elem_id="own-table"), gr.Row():
        with gr.Column(scale=4, min_width=320):
            gr.Markdown(
                "A CSV, as Excel saves it, or Parquet file of prompts that your models have answered: `prompt`, `task` "
                "(if you know it), and for each model `quality:<name>` from 0 to 1 and `cost:<name>` in dollars.\n"
                f"{_EXAMPLE}\n"
                f"Up to {limits.table_prompts:,} prompts, {limits.table_models} models and {limits.table_megabytes:g} "
                "MB; rows that cannot be used are left out. The router that is trained on it, with your prompts, can "
                "be reached for two hours by this page's address: share that only with whom you would show the table.",
                elem_classes="note",
            )
            upload = file_box(label="Your table", file_types=[*TABLE_SUFFIXES], height=140, elem_id="table")
            estimator = gr.Radio(_ESTIMATORS, value="knn", label="Learn by", info="The last takes minutes.")
            buttons = start_and_cancel("Train a router", "train")
            forget = gr.Button("Use the shipped router again", visible=False, elem_id="forget")
        with gr.Column(scale=6, min_width=320):
            status = status_box("Whether routing pays for your models, and how a router does, is said here.", "trained")

    def train(job: Job, path: str | None, estimator: str) -> "OwnRouter":
        if path is None:
            raise TableError("Load a table first.")
        from mofme.papers.carrot.tab_own import read_own, train_own

        return train_own(read_own(Path(path), limits), estimator, job)

    def compared(trained: "OwnRouter") -> str:
        from mofme.papers.carrot.tab_own import own_html

        return own_html(trained)

    work(
        train,
        [upload, estimator],
        {own: lambda trained: trained, status: compared, forget: lambda _: gr.Button(visible=True)},
        buttons,
        status,
        limits.training_seconds,
    )
    # In the queue, or nobody is told that the state has changed.
    forget.click(
        lambda: [None, "", gr.Button(visible=False)],
        None,
        [own, status, forget],
        show_progress="hidden",
        api_visibility="private",
    )


def answer_html(routed: "Routed", knows: str) -> str:
    """The chosen model, what is expected of all of them, and the prompts that the router goes by.

    `knows` says what the router has learnt from.
    """
    chosen = routed.models.index(routed.model)
    quality, cost = float(routed.quality_M[chosen]), float(routed.cost_M[chosen])
    missed = routed.missed and f"<p><b>{routed.missed.capitalize()}.</b></p>"
    return (
        f"<p class='note'>{html.escape(knows)}</p><p class='choice'>Ask <b>{html.escape(routed.model)}</b></p>{missed}"
        f"<p>Expected quality {100 * quality:.0f} %, {dollars(cost)} per 1,000 prompts. {_beside_the_best(routed)}</p>"
        f"{_models_table(routed)}<div class='plots'>{_plot(routed)}</div>{_neighbours(routed)}"
    )


def dollars(cost: float) -> str:
    """Dollars a prompt as dollars per 1,000: they can be read."""
    return f"${1000 * cost:,.2f}" if cost >= 1e-5 else f"${1000 * cost:.1g}"


def _beside_the_best(routed: "Routed") -> str:
    chosen, best = routed.models.index(routed.model), int(routed.quality_M.argmax())
    if best == chosen:
        return "No other is expected to be better."
    points = 100 * float(routed.quality_M[best] - routed.quality_M[chosen])
    return (
        f"The best, {html.escape(routed.models[best])}, is expected to be {points:.0f} points better, for "
        f"{dollars(float(routed.cost_M[best]))}."
    )


def _models_table(routed: "Routed") -> str:
    order = (-routed.quality_M).argsort(kind="stable").tolist()
    heads = ("Model", cell("Expected quality", "th", colspan=2), "Per 1,000")
    rows = []
    for model in order:
        quality = float(routed.quality_M[model])
        rows.append(
            (routed.models[model], bar(quality), f"{100 * quality:.0f} %", dollars(float(routed.cost_M[model])))
        )
    chosen = order.index(routed.models.index(routed.model))
    return table(heads, rows, "numbers models", {chosen: "chosen"})


def _plot(routed: "Routed") -> str:
    """What the models are expected to do with this prompt, and the choices between quality and cost."""
    models = {
        name: (1000 * float(cost), float(quality))
        for name, cost, quality in zip(routed.models, routed.cost_M, routed.quality_M, strict=True)
    }
    # None is both cheaper or as cheap and better or as good.
    worth = [
        (cost, quality)
        for cost, quality in models.values()
        if not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in models.values())
    ]
    return cost_plot("This prompt", models, {"choices worth their price": sorted(worth)}, routed.model)


def _neighbours(routed: "Routed") -> str:
    """The nearest prompts that the router knows: their text or task, how near they are, and who solved them."""
    if not routed.neighbours:
        return ""
    far = max(near.similarity for near in routed.neighbours) < _FAR
    rows: list[Sequence[str]] = []
    texts = {}
    for near in routed.neighbours:
        rows.append((near.task or "unknown", f"{near.similarity:.2f}", _solved(near.solved_by, routed.models)))
        # A row of its own below its task's; shipped routers hold no texts.
        if words := shorten(near.prompt, _SHOWN, placeholder=" …"):
            texts[len(rows)] = "text"
            rows.append([cell(words, colspan=3)])
    warning = "<p>Nothing it knows is like this prompt: do not trust these numbers much.</p>" if far else ""
    heads = ("Task", "Similarity", "Solved by")
    return f"<h2>The nearest prompts it knows</h2>{warning}{table(heads, rows, 'neighbours', texts)}"


def _solved(names: Sequence[str], models: Sequence[str]) -> str:
    failed = [model for model in models if model not in names]
    if not names or not failed:
        return "all" if names else "none"
    return f"all but {', '.join(failed)}" if len(failed) < len(names) else ", ".join(names)


def _knows(router: "TrainedRouter", own: bool) -> str:
    """What the router that answers has learnt from."""
    tasks = router.carrot.tasks
    known = f"{len(tasks):,} prompts" + (f" of {len(set(tasks))} tasks" if any(tasks) else "")
    return f"{'Your' if own else 'The shipped'} router has learnt from {known}."


def _warm_up(services: Services) -> None:
    try:
        services.prompt_router().queries(["The encoder is read when it is first needed."])
    except ModelError:
        return  # said when a prompt is to be routed
