"""A tab's work in one call: its start and Cancel buttons, a job with a time limit, errors in plain words, a status
line, and the same work for programs under a name.
"""

import functools
import html
import inspect
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component
from gradio.context import get_blocks_context

from mofme.errors import Cancelled, MofmeError
from mofme.ui.memory import MEMORY, needed
from mofme.ui.runs import Job, Run, Runs
from mofme.ui.service import at_work, closing
from mofme.ui.uploads import ALOUD, without_folders

log = logging.getLogger(__name__)

# Buttons change at once, without a place in the queue, and are no business of the API's callers.
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}

# The address becomes a link to the work that begins.
_LINK = """() => {{
  const address = new URL(location);
  address.searchParams.set("{}", [...crypto.getRandomValues(new Uint32Array(3))].map(one => one.toString(36)).join(""));
  history.replaceState(history.state, "", address);
  ({})();
}}"""

# Waits for what has come to take its place: before that the page may be too short to scroll so far.
_SCROLL = """() => setTimeout(() => {{
  const shown = document.querySelector("#{}");
  if (shown.getBoundingClientRect().top > window.innerHeight / 2) shown.scrollIntoView({{behavior: "smooth"}});
}}, 300)"""


# Pages that are shown work again at once: each holds one of the 40 threads that all else needs, too.
_looking_on = threading.BoundedSemaphore(16)

RELOAD_SECONDS = 10.0
"""How long work goes on for a page that was closed: long enough to load it again."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Shows the message of a MofmeError to the user; logs any other error and shows a general sentence."""
    try:
        yield
    except gr.Error:
        raise
    except MofmeError as error:
        message = html.escape(without_folders(str(error)), quote=False)
        # Who has stopped the work need not be told of an error.
        raise gr.Error(message, visible=not isinstance(error, Cancelled), print_exception=False) from error
    except Exception as error:
        log.exception("unexpected error")
        message = "Something went wrong on our side. Try again, or try something else."
        raise gr.Error(message, print_exception=False) from error


@dataclass(frozen=True)
class Endpoint:
    """Work under a name, for programs: what they get (labels, and the components that carry it) and how it comes of a
    result; every one that work yields if it `streams`, else the last.
    """

    name: str
    description: str
    returns: Mapping[str, type[Component]]
    answer: Callable[[Any], Any]
    streams: bool = False


def start_and_cancel(words: str, elem_id: str, ready: bool = True) -> tuple[gr.Button, gr.Button]:
    """The two buttons for `work`, side by side: one is live while the other is not."""
    with gr.Row():
        start = gr.Button(words, variant="primary", interactive=ready, scale=3, min_width=160, elem_id=elem_id)
        cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90, elem_id=f"{elem_id}-cancel")
    return start, cancel


def status_box(words: str, elem_id: str | None = None, min_height: int = 60) -> gr.HTML:
    """Where work tells how it goes, or answers, aloud to screen readers; at first `words` (HTML) stand there."""
    note = f"<p class='note'>{words}</p>"
    return gr.HTML(note, padding=False, elem_classes="status", elem_id=elem_id, min_height=min_height, js_on_load=ALOUD)


def work(
    run: Callable[..., Any],
    inputs: Sequence[Component],
    shown: Mapping[Block, Callable[[Any], Any]],
    buttons: tuple[gr.Button, gr.Button],
    status: Component,
    seconds: float,
    endpoint: Endpoint | None = None,
    progress_on: Component | None = None,
    scroll_to: Component | None = None,
    away: float = RELOAD_SECONDS,
    stopped: str = "Stopped.",
) -> None:
    """Call `run(job, *values of inputs)` on a click of the start button, one visitor at a time, and show what it
    returns, or every result that it yields: `shown` says for each block what it shows of a result.

    Cancel takes the work out of the queue or stops it at its job's next check, of which `stopped` tells (HTML); so does
    its time limit. The page's address becomes a link to the work, by which it is shown again; when nobody has had it
    open for `away` seconds, it is stopped. Errors stand in `status` until other files are chosen. `progress_on` is
    covered by the progress bar (else `status`); `scroll_to`, which needs an `elem_id`, is brought into view at the
    click and at the end, which Gradio's own `scroll_to_output` does not do on a phone. The endpoint has the inputs of
    `run` under their names, but for states, which come last and for which `run` has defaults.
    """
    start, cancel = buttons
    queue, at_first = str(start.elem_id), status.value
    runs = Runs(away, queue)
    of_programs: set[tuple[str, Job]] = set()  # by session

    def set_running(running: bool) -> dict[Block, Any]:
        return {start: gr.Button(interactive=not running), cancel: gr.Button(interactive=running)}

    def begun() -> dict[Block, Any]:
        return {status: "", **set_running(True)}  # what stands there would shine through the progress bar

    def stop(request: gr.Request) -> dict[Block, Any]:
        for one in runs.followed_by(str(request.session_hash)):
            one.job.cancel()
        return {status: stopped, **set_running(False)}

    def follow(request: gr.Request, one: Run, progress: Any) -> Iterator[dict[Block, Any]]:
        try:
            with plain_errors():
                yield from one.follow(str(request.session_hash), _telling(progress))
        except gr.Error as error:
            was_asked = isinstance(error.__cause__, Cancelled)
            told = one.job.why_stopped if closing.is_set() else stopped
            yield {status: told if was_asked else _problem(error)}

    def click(request: gr.Request, *values: Any) -> Iterator[dict[Block, Any]]:
        *given, progress = values
        name = request.query_params.get(queue) or secrets.token_hex(8)
        show = _showing(shown)
        one = runs.begin(name, lambda job: map(show, _results(run(job, *given))), seconds, needed(given))
        yield from follow(request, one, progress)

    def come_back(request: gr.Request, progress: Any) -> Iterator[dict[Block, Any]]:
        name = request.query_params.get(queue)
        one = runs.find(name) if name else None
        if one and not _looking_on.acquire(blocking=False):
            yield {status: "<p class='note'>Too many pages look on: load this one again in a minute.</p>"}
        elif one:
            try:
                yield set_running(True)
                yield from follow(request, one, progress)
                yield set_running(False)
            finally:
                _looking_on.release()
        elif name:
            yield {status: "<p class='note'>What this link led to is not kept any more: start again.</p>"}
        else:
            yield {status: gr.skip()}  # work may have been started meanwhile

    def answer(request: gr.Request, *values: Any) -> Iterator[Any]:
        *given, progress = values
        job = Job(seconds, _telling(progress))
        of_programs.add(mine := (str(request.session_hash), job))
        try:
            with at_work(queue, job), MEMORY.room(needed(given), job.wait):
                yield from _results(run(job, *given))
        finally:
            of_programs.discard(mine)

    def leave(request: gr.Request) -> None:
        visitor = str(request.session_hash)
        for one in runs.followed_by(visitor):
            one.leave(visitor)
        for whose, job in list(of_programs):
            if whose == visitor:
                job.cancel()

    def other_files(told: str) -> Any:
        return at_first if "class='problem'" in str(told) else gr.skip()

    outputs = list(dict.fromkeys([*shown, status, *buttons]))
    scroll = _SCROLL.format(scroll_to.elem_id) if scroll_to else "() => {}"
    clicked = start.click(begun, None, [status, *buttons], js=_LINK.format(queue, scroll), **AT_ONCE)
    done = clicked.then(
        _signed(click, _parameters(run, len(inputs))),
        list(inputs),
        outputs,
        **_one_at_a_time(queue),
        show_progress_on=progress_on or status,
    )
    # `then` alone is not called after an error.
    for after in (done.success, done.failure):
        after(lambda: set_running(False), None, list(buttons), js=scroll, **AT_ONCE)
    cancel.click(stop, None, [status, *buttons], cancels=[done], **AT_ONCE)
    gr.on(
        None,
        _signed(come_back, []),
        None,
        outputs,
        concurrency_limit=None,
        api_visibility="private",
        api_name=f"come-back-{queue}",
        show_progress="hidden",
    )
    for box in inputs:
        if isinstance(box, (gr.Image, gr.File)):
            box.change(other_files, status, status, **AT_ONCE)
    if blocks := get_blocks_context():
        blocks.root_block.unload(leave)
    if endpoint:
        boxes = [box for box in inputs if not isinstance(box, gr.State)]
        offer(endpoint, _signed(answer, _parameters(run, len(boxes))), boxes, queue)


def shows(
    run: Callable[..., Any],
    inputs: Sequence[Component],
    shown: Mapping[Block, Callable[[Any], Any]],
    status: Component,
    queue: str,
    streams: bool = False,
    otherwise: Mapping[Block, Any] | None = None,
) -> dict[str, Any]:
    """What an event needs to show in `shown` what comes of `run(*values of inputs)`: `button.click(**shows(...))`.

    Errors stand in `status`, beside `otherwise`. One visitor at a time is served of all that have the same `queue`.
    """
    steps = _answering(run, _showing(shown))

    @functools.wraps(steps)
    def shown_steps(*values: Any) -> Iterator[dict[Block, Any]]:
        try:
            yield from steps(*values)
        except gr.Error as error:
            yield {status: _problem(error), **(otherwise or {})}

    function = shown_steps if streams else _last(shown_steps)
    return {"fn": function, "inputs": list(inputs), "outputs": list(shown), **_one_at_a_time(queue)}


def offer(endpoint: Endpoint, run: Callable[..., Any], inputs: Sequence[Component], queue: str) -> None:
    """Let programs call `run(*values of inputs)` under the endpoint's name."""
    steps = _answering(run, endpoint.answer)
    answering = steps if endpoint.streams else _last(steps)
    answering.__name__ = endpoint.name  # of the tool that MCP offers
    gr.Button(visible=False).click(
        answering,
        list(inputs),
        [component(label=label, visible=False) for label, component in endpoint.returns.items()],
        api_name=endpoint.name,
        api_description=endpoint.description,
        concurrency_limit=1,
        concurrency_id=queue,
    )


def _showing(shown: Mapping[Block, Callable[[Any], Any]]) -> Callable[[Any], dict[Block, Any]]:
    return lambda result: {block: of(result) for block, of in shown.items()}


def _one_at_a_time(queue: str) -> dict[str, Any]:
    """Of an event on the page, whose name in the API must not be an endpoint's."""
    return {"concurrency_limit": 1, "concurrency_id": queue, "api_visibility": "private", "api_name": f"show-{queue}"}


def _telling(progress: Any) -> Callable[[float, str], Any]:
    """What is told of a job, on Gradio's bar."""
    return lambda share, words: progress(share, desc=words)


def _parameters(run: Callable[..., Any], count: int) -> list[inspect.Parameter]:
    """Those of the `count` inputs that follow the job: programs know them by these names."""
    return list(inspect.signature(run).parameters.values())[1 : count + 1]


def _signed(function: Callable[..., Any], inputs: Sequence[inspect.Parameter]) -> Callable[..., Any]:
    """`function` as Gradio calls it, which goes by the signature: the request, the inputs, and its progress."""
    request = inspect.signature(function).parameters["request"]
    progress = inspect.Parameter("progress", request.kind, default=gr.Progress())
    function.__signature__ = inspect.Signature([request, *inputs, progress])  # type: ignore[attr-defined]
    return function


def _answering(run: Callable[..., Any], answer: Callable[[Any], Any]) -> Callable[..., Iterator[Any]]:
    """`run` with `answer` applied to each of its results."""

    @functools.wraps(run)
    def steps(*inputs: Any) -> Iterator[Any]:
        with plain_errors():
            yield from map(answer, _results(run(*inputs)))

    return steps


def _last(steps: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    @functools.wraps(steps)
    def last(*inputs: Any) -> Any:
        *_, result = steps(*inputs)
        return result

    return last


def _problem(error: gr.Error) -> str:
    return f"<p class='problem'>{error.message}</p>"


def _results(outcome: Any) -> Iterator[Any]:
    yield from outcome if inspect.isgenerator(outcome) else (outcome,)
