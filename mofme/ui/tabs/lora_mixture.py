"""Tab Mixture of routers: a typed text, how the sub-routers vote word by word, and routers trained side by side."""

import functools
import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError, MofmeError
from mofme.ui.buttons import AT_ONCE
from mofme.ui.jobs import KEEP_SECONDS, plain_errors, without_folders
from mofme.ui.lora_mixture.answer import explained_values, layer_html, layer_name, summary_html, telling_layer
from mofme.ui.lora_mixture.training_box import training_box
from mofme.ui.measured import measured_by_us
from mofme.ui.services import Services

if TYPE_CHECKING:
    from mofme.language.lora_mixture.explanation import Explained
    from mofme.language.lora_mixture.model import LoraMixture

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


@functools.cache
def shipped_mixture() -> "LoraMixture":
    """The shipped mixture, read when it is first asked for. Raises ModelError if it is missing or damaged."""
    from mofme.language.lora_mixture.model import LoraMixture

    return LoraMixture.from_pretrained()


def build(services: Services, mixture: Callable[[], "LoraMixture"] = shipped_mixture) -> None:
    """Draw the tab and connect it."""
    gr.Markdown(SENTENCE, elem_classes="note")
    explained = gr.State(None, time_to_live=KEEP_SECONDS)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            text = gr.Textbox(
                label="Your text", lines=4, max_lines=10, placeholder="Type a request", elem_id="mixture-text"
            )
            examples = gr.Dataset(
                components=[text],
                samples=[[words] for _, words in EXAMPLES],
                sample_labels=[label for label, _ in EXAMPLES],
                label="Or try one of these",
                elem_id="mixture-examples",
            )
            start = gr.Button("Show the routers", variant="primary", elem_id="mixture-start")
        with gr.Column(scale=6, min_width=320):
            answer = gr.HTML(
                '<p class="note">What kind of text it is, and whether the routers agree, appears here.</p>',
                padding=False,
                elem_id="mixture-answer",
                min_height=120,
            )
    layer = gr.Radio([], label="Layer", visible=False, elem_id="mixture-layer")
    words = gr.HTML(padding=False, elem_id="mixture-words")
    own = training_box(services)
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    def explain(text: str, own: Any) -> "Explained":
        _check(text, services.limits.prompt_characters)
        return (own.mixture if own and own.mixture else mixture()).explain(text)

    def show(text: str, own: Any) -> list[Any]:
        with plain_errors():
            try:
                found = explain(text, own)
            except ModelError as error:
                return [
                    None,
                    f"<p class='problem'>{html.escape(without_folders(str(error)))}</p>",
                    gr.Radio(visible=False),
                    "",
                ]
            names = [(layer_name(one.name), place) for place, one in enumerate(found.layers)]
            first = telling_layer(found)
            whose = "Your own" if own and own.mixture else "The shipped"
            knows = f"{whose} mixture answers; it tells {len(found.labels)} kinds of text apart."
            return [
                found,
                summary_html(found, knows),
                gr.Radio(names, value=first, visible=True),
                layer_html(found, first),
            ]

    def explain_api(text: str) -> dict[str, Any]:
        with plain_errors():
            return explained_values(explain(text, None))

    event: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "mixture"}
    shown: dict[str, Any] = {"inputs": [text, own], "outputs": [explained, answer, layer, words], **event}
    gr.on([start.click, text.submit], show, show_progress_on=answer, **shown)
    examples.click(lambda sample: sample[0], examples, text, **AT_ONCE).then(show, show_progress_on=answer, **shown)
    layer.input(
        lambda explained, place: layer_html(explained, place) if explained else "",
        [explained, layer],
        words,
        show_progress="hidden",
        api_visibility="private",
    )
    gr.Button(visible=False).click(
        explain_api,
        text,
        gr.JSON(label="explanation", visible=False),
        api_name="mixture_of_routers",
        api_description=(
            "What the shipped mixture of routers makes of a text: its class, the tokens, and in every layer the votes "
            "of the sub-routers (router, token, expert), the main router's shares (token, router), the mixed "
            "probabilities and the experts' weights (token, expert)."
        ),
        concurrency_limit=1,
        concurrency_id="mixture",
    )


def _check(text: str, most: int) -> None:
    if not text.strip():
        raise MofmeError("Type a text first, or click an example.")
    if len(text) > most:
        raise MofmeError(f"The text has {len(text):,} characters, more than the limit of {most:,}: shorten it.")
