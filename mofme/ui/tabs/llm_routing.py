"""Tab LLM routing: a prompt in, the model to ask out; and a router of the visitor's own from a table of answers."""

import html
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError, MofmeError
from mofme.ui.buttons import AT_ONCE
from mofme.ui.jobs import plain_errors, without_folders
from mofme.ui.llm_routing.answer import answer_html
from mofme.ui.llm_routing.dial import BUDGET, QUALITY, WAYS, WEIGHT, Dial
from mofme.ui.llm_routing.table_box import table_box
from mofme.ui.measured import measured_by_us
from mofme.ui.services import Services

if TYPE_CHECKING:
    from mofme.language.llm_routing.trained_router import Routed, TrainedRouter
    from mofme.ui.llm_routing.own_router import OwnRouter

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


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            prompt = gr.Textbox(
                label="Your prompt",
                lines=5,
                max_lines=12,
                placeholder="What would you ask a language model?",
                elem_id="prompt",
            )
            examples = gr.Dataset(
                components=[prompt],
                samples=[[text] for _, text in EXAMPLES],
                sample_labels=[label for label, _ in EXAMPLES],
                label="Or try one of these",
                elem_id="prompts",
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
            answer = gr.HTML(
                '<p class="note">Which model to ask, and what to expect of the others, appears here. '
                "Nothing is sent to any of them.</p>",
                padding=False,
                elem_id="answer",
                min_height=120,
            )
    own = table_box(services)
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    dial = [way, weight, budget, least]

    def route_and_show(prompt: str, way: str, weight: float, budget: float | None, least: float, own: Any) -> str:
        with plain_errors():
            try:
                routed = _route(services, prompt, Dial(way, weight, budget or 0, least), own)
                return answer_html(routed, _knows(own.router if own else services.prompt_router(), own is not None))
            except ModelError as error:
                return f"<p class='problem'>{html.escape(without_folders(str(error)))}</p>"

    def again(prompt: str, *arguments: Any) -> Any:
        """As soon as there is a prompt, whatever is changed shows at once."""
        return route_and_show(prompt, *arguments) if prompt.strip() else gr.skip()

    def route_api(prompt: str, way: str, weight: float, budget: float | None, least: float) -> dict[str, Any]:
        with plain_errors():
            return _route(services, prompt, Dial(way, weight, budget or 0, least), None).as_json()

    inputs = [prompt, *dial, own]
    event: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "route"}
    gr.on([start.click, prompt.submit], route_and_show, inputs, answer, show_progress="minimal", **event)
    examples.click(lambda sample: sample[0], examples, prompt, **AT_ONCE).then(
        route_and_show, inputs, answer, show_progress="minimal", **event
    )
    way.change(
        lambda way: [
            gr.update(visible=way == WEIGHT),
            gr.update(visible=way == BUDGET),
            gr.update(visible=way == QUALITY),
        ],
        way,
        [weight, budget, least],
        **AT_ONCE,
    )
    gr.on(
        [way.change, weight.change, budget.change, least.change, own.change],
        again,
        inputs,
        answer,
        show_progress="hidden",
        trigger_mode="always_last",
        **event,
    )
    # While the visitor types, the router is read.
    prompt.focus(lambda: _warm_up(services), None, None, show_progress="hidden", **event)
    gr.Button(visible=False).click(
        route_api,
        [prompt, *dial],
        gr.JSON(label="answer", visible=False),
        api_name="route",
        api_description=(
            "Choose a language model for a prompt. way: 'Quality or cost' by weight, 'Budget' by budget in dollars per "
            "1,000 prompts, 'Least quality' by least in percent. Costs in the answer are dollars a prompt."
        ),
        concurrency_limit=1,
        concurrency_id="route",
    )


def _route(services: Services, prompt: str, dial: Dial, own: "OwnRouter | None") -> "Routed":
    if not prompt.strip():
        raise MofmeError("Type a prompt first, or click an example.")
    if len(prompt) > services.limits.prompt_characters:
        raise MofmeError(
            f"The prompt has {len(prompt):,} characters, more than the limit of "
            f"{services.limits.prompt_characters:,}: shorten it."
        )
    router = own.router if own else services.prompt_router()
    return dial.route(router, prompt)


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
