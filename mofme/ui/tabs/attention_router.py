"""Tab Attention router: one text read by three models that differ in their router alone."""

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError, MofmeError
from mofme.ui.attention_router.training_box import training_box
from mofme.ui.buttons import AT_ONCE
from mofme.ui.jobs import KEEP_SECONDS, plain_errors, without_folders
from mofme.ui.measured import measured_by_us
from mofme.ui.services import Services

if TYPE_CHECKING:
    from mofme.language.attention_router.explanation import Explanation

MEASURED = ("attention_router", "routers")

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


def _explain(text: str) -> "Explanation":
    from mofme.language.attention_router.explanation import explain

    return explain(text)


def build(services: Services, explain: Callable[[str], "Explanation"] = _explain) -> None:
    """Draw the tab and connect it."""
    gr.Markdown(SENTENCE, elem_classes="note")
    explained = gr.State(None, time_to_live=KEEP_SECONDS)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            text = gr.Textbox(
                label="Your text", lines=4, max_lines=10, placeholder="Type a few sentences", elem_id="attention-text"
            )
            examples = gr.Dataset(
                components=[text],
                samples=[[words] for _, words in EXAMPLES],
                sample_labels=[label for label, _ in EXAMPLES],
                label="Or try one of these",
                elem_id="attention-examples",
            )
            start = gr.Button("Show the routers", variant="primary", elem_id="attention-start")
        with gr.Column(scale=6, min_width=320):
            answer = gr.HTML(
                '<p class="note">How well each model reads the text, and how evenly it asks its experts, appears '
                "here.</p>",
                padding=False,
                elem_id="attention-answer",
                min_height=120,
            )
    layer = gr.Radio([], label="Layer", visible=False, elem_id="attention-layer")
    tokens = gr.HTML(padding=False, elem_id="attention-tokens")
    training_box(services)
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    def checked(text: str) -> "Explanation":
        _check(text, services.limits.prompt_characters)
        return explain(text)

    def show(text: str) -> list[Any]:
        from mofme.ui.attention_router.answer import layer_html, layers, summary_html

        with plain_errors():
            try:
                found = checked(text)
            except ModelError as error:
                words = f"<p class='problem'>{html.escape(without_folders(str(error)))}</p>"
                return [None, words, gr.Radio(visible=False), ""]
            last = layers(found) - 1
            names = [(f"Layer {place + 1}", place) for place in range(layers(found))]
            return [
                found,
                summary_html(found),
                gr.Radio(names, value=last, visible=True),
                layer_html(found, last),
            ]

    def show_layer(explained: Any, place: int) -> str:
        from mofme.ui.attention_router.answer import layer_html

        return layer_html(explained, place) if explained else ""

    def explain_api(text: str) -> dict[str, Any]:
        from mofme.ui.attention_router.answer import explained_values

        with plain_errors():
            return explained_values(checked(text))

    event: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "attention"}
    shown: dict[str, Any] = {"inputs": text, "outputs": [explained, answer, layer, tokens], **event}
    gr.on([start.click, text.submit], show, show_progress_on=answer, **shown)
    examples.click(lambda sample: sample[0], examples, text, **AT_ONCE).then(show, show_progress_on=answer, **shown)
    layer.input(show_layer, [explained, layer], tokens, show_progress="hidden", api_visibility="private")
    gr.Button(visible=False).click(
        explain_api,
        text,
        gr.JSON(label="explanation", visible=False),
        api_name="attention_router",
        api_description=(
            "What three small language models with linear, MLP and attention routers make of a text: tokens, weights "
            "(layer, token, expert), loads, the loss of every token but the first, and the attention router's map "
            "(layer, expert, expert listened to)."
        ),
        concurrency_limit=1,
        concurrency_id="attention",
    )


def _check(text: str, most: int) -> None:
    if not text.strip():
        raise MofmeError("Type a text first, or click an example.")
    if len(text) > most:
        raise MofmeError(f"The text has {len(text):,} characters, more than the limit of {most:,}: shorten it.")
