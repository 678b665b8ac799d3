"""A text that a visitor types or takes from examples, and what a model with layers made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from mofme.errors import MofmeError
from mofme.ui.uploads import KEEP_SECONDS
from mofme.ui.work import AT_ONCE, Endpoint, offer, shows, status_box


@dataclass(frozen=True)
class Reading:
    """What is shown of a text that a model has read: the answer (HTML), the names of its layers, the layer that is
    shown first, and how a layer is shown (HTML).
    """

    summary: Callable[[Any], str]
    layers: Callable[[Any], Sequence[str]]
    first: Callable[[Any], int]
    layer_html: Callable[[Any, int], str]


def text_and_examples(
    label: str, placeholder: str, examples: Sequence[tuple[str, str]], elem_ids: tuple[str, str], lines: int = 4
) -> tuple[gr.Textbox, gr.Dataset]:
    """A box to type into, and buttons (a label and a text each) that fill it: see `on_text`."""
    text = gr.Textbox(label=label, lines=lines, max_lines=12, placeholder=placeholder, elem_id=elem_ids[0])
    samples = gr.Dataset(
        components=[text],
        samples=[[words] for _, words in examples],
        sample_labels=[label for label, _ in examples],
        label="Or try one of these",
        elem_id=elem_ids[1],
    )
    return text, samples


def on_text(start: gr.Button, text: gr.Textbox, samples: gr.Dataset, **event: Any) -> None:
    """An event on a click of the button, on Enter, and on a click of an example, which fills the box first."""
    gr.on([start.click, text.submit], **event)
    samples.click(lambda sample: sample[0], samples, text, **AT_ONCE).then(**event)


def check_typed(text: str, most: int, thing: str = "text") -> None:
    """Raises MofmeError for nothing but blanks, and for more than `most` characters."""
    if not text.strip():
        raise MofmeError(f"Type a {thing} first, or click an example.")
    if len(text) > most:
        raise MofmeError(f"The {thing} has {len(text):,} characters, more than the limit of {most:,}: shorten it.")


def read_text_box(
    name: str,
    tokens_id: str,
    words: tuple[str, str],
    examples: Sequence[tuple[str, str]],
    read: Callable[[str], Any],
    shown: Reading,
    endpoint: Endpoint,
) -> None:
    """Draw and connect a box for a text, the answer, and below them one layer of the model that read it.

    Names of elements begin with `name`; `words` stand in the empty box and in place of the answer.
    """
    result = gr.State(None, time_to_live=KEEP_SECONDS)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            text, samples = text_and_examples("Your text", words[0], examples, (f"{name}-text", f"{name}-examples"))
            start = gr.Button("Show the routers", variant="primary", elem_id=f"{name}-start")
        with gr.Column(scale=6, min_width=320):
            answer = status_box(words[1], f"{name}-answer", 120)
    layer = gr.Radio([], label="Layer", visible=False, elem_id=f"{name}-layer")
    tokens = gr.HTML(padding=False, elem_id=tokens_id)

    def layers(found: Any) -> gr.Radio:
        names = [(name, place) for place, name in enumerate(shown.layers(found))]
        return gr.Radio(names, value=shown.first(found), visible=True)

    event = shows(
        read,
        [text],
        {
            result: lambda found: found,
            answer: shown.summary,
            layer: layers,
            tokens: lambda found: shown.layer_html(found, shown.first(found)),
        },
        answer,
        name,
        otherwise={result: None, layer: gr.update(visible=False), tokens: ""},
    )
    on_text(start, text, samples, **event, show_progress_on=answer)
    layer.input(
        lambda found, place: shown.layer_html(found, place) if found else "",
        [result, layer],
        tokens,
        show_progress="hidden",
        api_visibility="private",
    )
    offer(endpoint, read, [text], name)
