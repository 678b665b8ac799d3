"""Tab Dense to MoE: a small language model becomes a mixture of experts on the spot, and both write side by side."""

import html
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError
from mofme.ui.chart import tradeoff_plot
from mofme.ui.html import Block, bars, heat_grid, measured_box, numbered, table
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.uploads import KEEP_SECONDS, file_box, read_own_text
from mofme.ui.work import Endpoint, plain_errors, start_and_cancel, status_box, work

if TYPE_CHECKING:
    from mofme.papers.ladimo.converted_layer import Policy, Split
    from mofme.papers.ladimo.tab_live import Arm, Converted, Written

MEASURED = ("dense_to_moe", "dense_to_moe_100k")
EXPERTS = (4, 8, 16, 32)
SHARED = {"none": 0.0, "a sixth": 1 / 6, "a third": 1 / 3, "half": 1 / 2}
"""Neurons that every token uses, as a share of a layer's neurons."""
GROUPED: dict[str, "Split"] = {
    "by which neurons fire together": "co-activation",
    "by how strongly they fire": "activation",
}
"""Ways to group the neurons into experts."""
RANDOM, PRUNED = "experts drawn by chance", "weak neurons removed for good"
CONTROLS = (RANDOM, PRUNED)
"""What else may be made of the same model with the same text and target, each for the time of another conversion."""

_KEPT = 2  # converted models, each of some 300 MB
_QUESTIONS = 50
_INTRODUCTION = (
    "A language model uses all of its parameters for every word. Here the neurons of each layer are divided among "
    "experts, and a small router learns which few of them a word needs: the same model, with less to compute."
)


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    newest: deque[tuple[int, Converted]] = deque(maxlen=_KEPT)
    keys, key = itertools.count(1), gr.State(None, time_to_live=KEEP_SECONDS)  # which only its visitor holds
    gr.Markdown(_INTRODUCTION, elem_classes="note")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            target = gr.Slider(
                5, 40, 20, step=1, label="Parameters to save, %", info="The share of parameters that a word will skip."
            )
            experts = gr.Radio(list(EXPERTS), value=8, label="Experts in each layer")
            shared = gr.Radio(
                list(SHARED), value="half", label="Neurons that always work", info="The busiest; experts are the rest."
            )
            tokens = gr.Slider(
                512,
                32_768,
                value=8192,
                step=512,
                label="Tokens to learn from",
                info="A token is about four letters. 8,192 take about two minutes on a laptop; we tried 100,000.",
                elem_id="tokens",
            )
            own = file_box(label="Your own text (.txt)", file_types=[".txt"], height=120, elem_id="own-text")
            gr.Markdown(
                "Without one, A Midsummer Night's Dream is taken. The end of the text is held back to measure on.",
                elem_classes="note",
            )
            with gr.Accordion("More options", open=False):
                controls = gr.CheckboxGroup(
                    list(CONTROLS), label="Also try, as a control", info="Each takes as long as the conversion itself."
                )
                questions = file_box(label="Questions to answer (.jsonl)", file_types=[".jsonl"], height=120)
                gr.Markdown(
                    'A line is `{"question": …, "choices": ["…", "…"], "answer": "A"}`; '
                    f"{_QUESTIONS} of them are asked.",
                    elem_classes="note",
                )
                grouped = gr.Radio(list(GROUPED), value=next(iter(GROUPED)), label="Group neurons")
                seed = gr.Slider(0, 1000, value=0, step=1, label="Seed", info="The same seed converts alike.")
            buttons = start_and_cancel("Convert", "convert")
        with gr.Column(scale=6, min_width=320):
            status = status_box(
                "What conversion saves and what it costs appears here. So short a run shows how it is done; how well "
                "it can be done is measured below.",
                "conversion",
            )
            tables = gr.HTML(padding=False, elem_id="converted")
    with gr.Row(equal_height=True):
        prompt = gr.Textbox(
            "The moon rose over the wood, and", label="Let both write on", scale=5, min_width=240, elem_id="beginning"
        )
        write = gr.Button("Write", scale=1, min_width=120, elem_id="write")
    with gr.Row():
        with gr.Column(min_width=300):
            by_dense = gr.HTML(padding=False, elem_id="by-dense")
        with gr.Column(min_width=300):
            by_converted = gr.HTML(padding=False, elem_id="by-converted")
    measured_box(*MEASURED)

    def convert(
        job: Job,
        target: float,
        experts: int,
        shared: str,
        tokens: int,
        own: str | None = None,
        controls: Sequence[str] = (),
        questions: str | None = None,
        grouped: str = next(iter(GROUPED)),
        seed: int = 0,
    ) -> "Converted":
        from mofme.language.text import read_questions
        from mofme.papers.ladimo.tab_live import convert_live, recipe_for

        job.report(0, "Reading the model and the text")
        lm = services.language_model()
        asked = read_questions(Path(questions), limit=_QUESTIONS) if questions else []
        name = Path(own).name if own else "The text"
        recipe = recipe_for(lm.model, experts, SHARED[shared], int(tokens), GROUPED[grouped], int(seed))
        return convert_live(lm, lm.tokens(read_own_text(own)), name, asked, recipe, target / 100, controls, job)

    def keep(converted: "Converted") -> int:
        number = next(keys)
        newest.append((number, converted))
        return number

    def write_both(prompt: str, key: int | None) -> Iterator[tuple[str, str]]:
        from mofme.papers.ladimo.tab_live import write

        with plain_errors():
            converted = kept_of(newest, key)
            dense = written_html("Dense", prompt, write(services.language_model(), prompt))
            yield dense, "<h2>Converted</h2><p class='note'>Writing …</p>"
            yield dense, written_html("Converted", prompt, write(converted.lm, prompt))

    work(
        convert,
        [target, experts, shared, tokens, own, controls, questions, grouped, seed],
        {status: summary_html, tables: converted_html, key: keep},
        buttons,
        status,
        services.limits.training_seconds,
        Endpoint(
            "dense_to_moe",
            "Convert the small language model into a mixture of experts that uses `target` percent fewer parameters, "
            "learning from a text. Returns perplexity and parameters used of all models, and each layer's policy.",
            {"result": gr.JSON},
            converted_values,
        ),
    )
    gr.on(
        [write.click, prompt.submit],
        write_both,
        [prompt, key],
        [by_dense, by_converted],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="write",
    )


def kept_of(newest: "deque[tuple[int, Converted]]", key: int | None) -> "Converted":
    """Raises ModelError, with what to do, for a model that is not there (any more)."""
    if key is None:
        raise ModelError("Convert the model first, with the button above.")
    if (converted := dict(newest.copy()).get(key)) is None:
        raise ModelError("Your converted model made room for other visitors' ones: convert again.")
    return converted


def summary_html(converted: "Converted") -> str:
    """What it costs and saves, in one sentence, and what it rests on."""
    dense, ours = converted.arms[:2]
    return (
        f"<p>Done: an average token now uses <b>{saved(converted, ours):.1f} % fewer</b> of the model's "
        f"{converted.parameters / 1e6:.1f} million parameters. Perplexity goes from <b>{dense.text.perplexity:.1f}</b> "
        f"to <b>{ours.text.perplexity:.1f}</b>.</p><p class='note'>Learned from {converted.learned:,} tokens, measured "
        f"on {converted.measured:,} others of the same text.</p>"
    )


def saved(converted: "Converted", arm: "Arm") -> float:
    """Parameters that an average token uses no more, in percent of the dense model's."""
    return 100 * (1 - arm.activated / converted.parameters)


def converted_html(converted: "Converted") -> str:
    """All models beside each other, and inside the converted one what was chosen and which experts work."""
    dots = {arm.name: (arm.activated / 1e6, arm.text.perplexity_figure()) for arm in converted.arms}
    plot = tradeoff_plot("Perplexity against parameters used", "million parameters a token uses", dots)
    layers, experts = converted.use_LE.shape
    rows = [f"Layer {number}" for number in range(1, layers + 1)]
    use = heat_grid("", rows, [Block("Expert", numbered(experts), converted.use_LE, zeros=True)])
    return (
        f"<h2>Beside the dense model and controls</h2>{_table(converted)}"
        "<p class='note'>Perplexity: among how many equally likely words the model "
        "hesitates, roughly, at each word of the text held back. Lower is better; in brackets the 95 % interval. "
        "“All layers alike” uses as many experts in every layer, instead of a rule for each.</p>"
        f"<div class='plots'>{plot}</div><h2>Chosen for each layer</h2>{_policies(converted)}"
        "<details class='result' style='margin-top: 12px'><summary>How often each expert works, % of the tokens"
        f"</summary>{use}</details>"
    )


def converted_values(converted: "Converted") -> dict[str, Any]:
    """The same for programs: parameters, perplexity, accuracy as shares, and each layer's policy."""
    return {
        "parameters": converted.parameters,
        "learned_tokens": converted.learned,
        "measured_tokens": converted.measured,
        "models": {
            arm.name: {
                "activated_parameters": arm.activated,
                "perplexity": arm.text.perplexity_figure().plain(),
                **({name: figure.plain() for name, figure in arm.choice.figures().items()} if arm.choice else {}),
            }
            for arm in converted.arms
        },
        "layers": [
            {
                "policy": candidate.policy.kind,
                "value": candidate.policy.value,
                "active_experts": float(use_E.sum()),
                "relative_error": candidate.error,
            }
            for candidate, use_E in zip(converted.conversion.chosen, converted.use_LE, strict=True)
        ],
    }


def written_html(title: str, prompt: str, written: "Written") -> str:
    """A text as one model writes it on."""
    used = f"{written.speed:.1f} tokens a second, {100 * written.used:.0f} % of the parameters used"
    how = used if written.text else "It takes the text to be complete, and adds nothing."
    return (
        f"<h2>{html.escape(title)}</h2><p style='white-space: pre-wrap; overflow-wrap: anywhere'>"
        f"{html.escape(prompt)}<b>{html.escape(written.text)}</b></p><p class='note'>{how}</p>"
    )


def policy_words(policy: "Policy") -> str:
    """In words that fit beside a bar."""
    if policy.kind == "dense":
        return "all"
    return f"best {policy.value:.0f}" if policy.kind == "top-k" else f"≥ {100 * policy.value:.1f} %"


def _table(converted: "Converted") -> str:
    heads = ["", "Million parameters a token uses", "Saved, %", "Perplexity"]
    heads += ["Right answers, %"] if converted.arms[0].choice else []
    rows = []
    for arm in converted.arms:
        perplexity = arm.text.perplexity_figure().text(digits=1)
        row = [arm.name, f"{arm.activated / 1e6:.1f}", f"{saved(converted, arm):.1f}", perplexity]
        if arm.choice:
            row.append(arm.choice.figures()["accuracy, normalized"].percent().text(digits=0))
        rows.append(row)
    return table(heads, rows)


def _policies(converted: "Converted") -> str:
    conversion, active_L = converted.conversion, converted.use_LE.sum(-1)
    experts, shared = conversion.recipe.experts, conversion.recipe.shared
    names = [f"{number}: {policy_words(one.policy)}" for number, one in enumerate(conversion.chosen, start=1)]
    always = f" {shared} neurons of each layer work always, and are not counted." if shared else ""
    return (
        f"<p class='note'>For each layer: its rule, and how many of its {experts} experts work for an average token. "
        "“best 6”: the six that its router thinks are needed most. “≥ 5 %”: all that get at least so much of the "
        f"router's weight, and the best one. “all”: the layer stays as it was.{always}</p>"
        f"{bars(dict(zip(names, active_L / experts, strict=True)), [f'{active:.1f}' for active in active_L])}"
    )
