"""Tab Dense to MoE: a small language model becomes a mixture of experts on the spot, and both write side by side."""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.dense_to_moe.choices import CONTROLS, EXPERTS, GROUPED, SHARED
from mofme.ui.dense_to_moe.report import converted_html, converted_values, summary_html, written_html
from mofme.ui.dense_to_moe.shelf import Shelf
from mofme.ui.jobs import KEEP_SECONDS, plain_errors, without_folders
from mofme.ui.measured import measured_by_us
from mofme.ui.own_text import SHIPPED_TEXT, read_own_text
from mofme.ui.services import Services
from mofme.ui.uploads import file_box

if TYPE_CHECKING:
    from mofme.ui.dense_to_moe.converting import Converted

MEASURED = ("dense_to_moe", "dense_to_moe_100k")
_KEPT = 2  # converted models, each of some 300 MB
_QUESTIONS = 50
_INTRODUCTION = (
    "A language model uses all of its parameters for every word. Here the neurons of each layer are divided among "
    "experts, and a small router learns which few of them a word needs: the same model, with less to compute."
)


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    shelf: Shelf[Converted] = Shelf(_KEPT)
    ticket = gr.State(None, time_to_live=KEEP_SECONDS)
    gr.Markdown(_INTRODUCTION, elem_classes="note")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            target = gr.Slider(
                5, 40, value=20, step=1, label="Parameters to save, %", info="So many of them a word uses no more."
            )
            experts = gr.Radio(list(EXPERTS), value=8, label="Experts in each layer")
            shared = gr.Radio(
                list(SHARED),
                value="half",
                label="Neurons that always work",
                info="The busiest; experts are the rest.",
            )
            tokens = gr.Slider(
                512,
                32_768,
                value=8192,
                step=512,
                label="Tokens to learn from",
                info="A token is about four letters. 8,192 take about two minutes on a laptop; ours were 100,000.",
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
            with gr.Row():
                start = gr.Button("Convert", variant="primary", scale=3, min_width=160, elem_id="convert")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
        with gr.Column(scale=6, min_width=320):
            status = gr.HTML(
                '<p class="note">What conversion saves and what it costs appears here. So short a run shows how it is '
                "done; how well it can be done is measured below.</p>",
                padding=False,
                elem_classes="status",
                elem_id="conversion",
                min_height=60,
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
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    inputs = [target, experts, shared, tokens, own, controls, questions, grouped, seed]

    def convert_and_show(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
        *inputs: Any,
    ) -> list[Any]:
        with plain_errors():
            try:
                services.language_model()
            except ModelError as error:
                return [f"<p class='problem'>{html.escape(without_folders(str(error)))}</p>", gr.skip(), gr.skip()]
            converted = _convert(services, request, progress, *inputs)
            return [summary_html(converted), converted_html(converted), shelf.put(converted)]

    def convert_api(
        target: float,
        experts: int,
        shared: str,
        tokens: int,
        own: str | None,
        controls: list[str],
        questions: str | None,
        grouped: str,
        seed: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> dict[str, Any]:
        with plain_errors():
            inputs = (target, experts, shared, tokens, own, controls, questions, grouped, seed)
            return converted_values(_convert(services, request, progress, *inputs))

    def write_both(prompt: str, ticket: int | None) -> Iterator[list[Any]]:
        from mofme.ui.dense_to_moe.writing import write

        with plain_errors():
            converted = shelf.get(ticket)
            pages = ["", ""]
            hosts = {"Dense": services.language_model(), "Converted": converted.host}
            for place, (title, host) in enumerate(hosts.items()):
                pages[place] = written_html(title, prompt, None)
                yield pages
                for written in write(host, prompt):
                    pages[place] = written_html(title, prompt, written)
                    yield pages

    run_and_cancel(
        start,
        cancel,
        status,
        services.converting,
        convert_and_show,
        inputs,
        [status, tables, ticket],
        show_progress_on=status,
        concurrency_id="convert",
    )
    gr.on(
        [write.click, prompt.submit],
        write_both,
        [prompt, ticket],
        [by_dense, by_converted],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=1,
        concurrency_id="write",
    )
    gr.Button(visible=False).click(
        convert_api,
        inputs,
        gr.JSON(label="result", visible=False),
        api_name="dense_to_moe",
        api_description=(
            "Convert the small language model into a mixture of experts that uses `target` percent fewer parameters, "
            "learning from a text. Returns perplexity and parameters used of all models, and each layer's policy."
        ),
        concurrency_limit=1,
        concurrency_id="convert",
    )


def _convert(
    services: Services,
    request: gr.Request,
    progress: gr.Progress,
    target: float,
    experts: int,
    shared: str,
    tokens: int,
    own: str | None,
    controls: list[str],
    questions: str | None,
    grouped: str,
    seed: int,
) -> "Converted":
    from mofme.language.texts import read_questions
    from mofme.ui.dense_to_moe.converting import Wish, convert_live

    path = Path(own) if own else SHIPPED_TEXT
    wish = Wish(target / 100, experts, SHARED[shared], int(tokens), GROUPED[grouped], controls, int(seed))
    progress(0, desc="Reading the model and the text")
    asked = read_questions(Path(questions), limit=_QUESTIONS) if questions else []
    host = services.language_model()
    with services.converting.running(request, services.limits.training_seconds) as job:
        ids = host.tokens(read_own_text(path))
        name = path.name if own else "The text"
        return convert_live(host, ids, name, asked, wish, job, lambda done, words: progress(done, desc=words))
