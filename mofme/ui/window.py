"""The app's window: its tabs, the Lab's pages, its limits, and the server behind `python app.py`."""

import errno
import html
import itertools
import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Gradio is imported: it asks its makers for news otherwise, and the app must work offline.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from gradio.queueing import Event, EventQueue, Queue
from gradio.themes.utils import colors
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

from mofme.errors import MofmeError
from mofme.papers.attention_router import tab as attention_router
from mofme.papers.binaryconnect import tab as binaryconnect
from mofme.papers.carrot import tab as carrot
from mofme.papers.ladimo import tab as ladimo
from mofme.papers.mixture_of_routers import tab as mixture_of_routers
from mofme.papers.moe_distillation import tab as moe_distillation
from mofme.papers.r2t2 import tab as r2t2
from mofme.papers.router_robustness import tab as router_robustness
from mofme.papers.smose import tab as smose
from mofme.ui import service
from mofme.ui.examples import examples_folder, make_examples
from mofme.ui.html import PLOTS
from mofme.ui.memory import MEMORY
from mofme.ui.models import Services
from mofme.ui.service import REFUSED, closing
from mofme.ui.tabs import batch, evaluate, restore, video
from mofme.ui.uploads import KEEP_SECONDS, own_folder

TITLE = "MoFME"
SENTENCE = "Takes rain, snow, raindrops and haze out of your photos and videos."

FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]

_DRAWINGS = Path(__file__).with_name("lab")
_BESIDE = (Path(__file__).with_name(name) for name in ("app.css", "on_the_page.js", "open_linked_tab.js"))
CSS, ON_THE_PAGE, OPEN_LINKED_TAB = (path.read_text(encoding="utf-8") for path in _BESIDE)


@dataclass(frozen=True)
class Card:
    """An experiment's name, and what it is good for in one plain sentence, beside the drawing `lab/<address>.svg`."""

    name: str
    use: str
    build: Callable[[Services], None]

    @property
    def address(self) -> str:
        return address_of(self.name)


def address_of(name: str) -> str:
    """As links write the name of a tab or an experiment."""
    return name.lower().replace(" ", "-")


# A new tab is one line here and a `build` in tabs/.
TABS: dict[str, Callable[[Services], None]] = {
    "Restore": restore.build,
    "Batch": batch.build,
    "Video": video.build,
    "Live": video.build_live,
}
# A new experiment is one entry here, a drawing in lab/, and a `build` in a paper's tab.py.
LAB: dict[str, Sequence[Card]] = {
    "Pictures": (
        Card("Evaluate", "Measures how much closer to the truth restoring brings pictures of yours.", evaluate.build),
        Card(
            "Re-routing",
            "Gives one photo a second try with its experts weighed anew, and shows whether that helps.",
            r2t2.build,
        ),
    ),
    "Language models": (
        Card("LLM routing", "Finds the cheapest language model that will answer your question well.", carrot.build),
        Card(
            "Router robustness",
            "Shows how easily such a choice of models is led astray, by a rewording or an attack.",
            router_robustness.build,
        ),
        Card(
            "Dense to MoE",
            "Cuts a small language model into experts, so that a word needs only some of it.",
            ladimo.build,
        ),
        Card(
            "Distillation",
            "Lets a large model teach a small one, and asks whether its idle experts help.",
            moe_distillation.build,
        ),
        Card(
            "Mixture of routers",
            "Lets several routers vote on which experts read a word, and shows where they disagree.",
            mixture_of_routers.build,
        ),
        Card(
            "Attention router",
            "Compares three ways to choose experts for a text that you type.",
            attention_router.build,
        ),
    ),
    "Tiny models": (
        Card(
            "Binary weights",
            "Reads the digit that you draw, with a net whose weights take one bit each.",
            binaryconnect.build,
        ),
        Card(
            "Interpretable control",
            "Drives a little robot and tells, at every step, which simple rule is at the wheel.",
            smose.build,
        ),
    ),
}
EXPERIMENTS = tuple(itertools.chain(*LAB.values()))
_REMEMBERED = 10_000  # clients
_SESSIONS = 200  # of visitors, each near a megabyte; Gradio would keep 10,000
_LAB = "Experiments with what clears the photos: a team of small experts, and a router that picks among them."


def cards(groups: Mapping[str, Sequence[Card]]) -> str:
    """All cards under their headings (HTML)."""
    return "".join(
        f"<h2>{html.escape(group)}</h2><div class='cards'>{''.join(map(_card, experiments))}</div>"
        for group, experiments in groups.items()
    )


def _card(experiment: Card) -> str:
    drawing = (_DRAWINGS / f"{experiment.address}.svg").read_text(encoding="utf-8")
    return (
        f"<a class='card' href='{experiment.address}'>{drawing}<b>{html.escape(experiment.name)}</b>"
        f"<span>{html.escape(experiment.use)}</span></a>"
    )


class FairQueue(Queue):
    """Gradio's queue, in which the client (who is logged in, or an address) who was served longest ago comes next, and
    none has more than `each` jobs of one kind waiting.
    """

    def __init__(self, each: int, max_size: int | None = None, **of_gradio: Any) -> None:
        super().__init__(max_size=None, **of_gradio)  # Gradio would also refuse who comes back to see his work
        self._each, self._most = each, max_size
        self._served: dict[str, int] = {}  # the turn in which a client came last
        self._turn = 0

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """As Gradio's, which answers whether it was taken, and the event's name or why not."""
        function = self.blocks.fns.get(body.fn_index)
        waiting = self.event_queue_per_concurrency_id.get(function.concurrency_id) if function else None
        comes_back = str(getattr(function, "api_name", "")).startswith("come-back-")
        client = username or _address(request)
        if closing.is_set():
            reason, words = "closing", "The app is being stopped. Try again in a minute."
        elif self._most is not None and len(self) >= self._most and not comes_back:
            reason, words = "queue", f"The app is busy: {len(self)} others wait already. Try again in a few minutes."
        elif waiting and sum(_client(event) == client for event in waiting.queue) >= self._each:
            words = f"You have {self._each} of these waiting already. Send more when some of them are done."
            reason = "client"
        else:
            return await super().push(body, request, username)
        REFUSED.labels(reason).inc()
        return False, words, "queue_full"

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        if closing.is_set():
            return None
        for waiting in self.event_queue_per_concurrency_id.values():
            self._put_in_order(waiting)
        if taken := super().get_events():
            self._turn += 1
            client = _client(taken[0][0])
            self._served.pop(client, None)
            self._served[client] = self._turn
            while len(self._served) > _REMEMBERED:  # who came so long ago counts as new
                del self._served[next(iter(self._served))]
        return taken

    async def process_events(self, events: list[Event], *more: Any, **named: Any) -> None:
        """As Gradio's, which keeps the state of every page for each call of the API, near a megabyte, as if it were a
        visitor's who may come back.
        """
        try:
            await super().process_events(events, *more, **named)
        finally:
            for event in events:
                if self.server_app and event.session_hash == event._id:  # the call came without a session
                    self.server_app.state_holder.session_data.pop(event._id, None)
                    self.server_app.state_holder.time_last_used.pop(event._id, None)

    def _put_in_order(self, waiting: EventQueue) -> None:
        """Everybody's first job, then everybody's second, ..., each by how long ago its client was served."""
        seen: Counter[str] = Counter()
        places = {}
        for event in waiting.queue:
            client = _client(event)
            places[event._id] = seen[client], self._served.get(client, 0)
            seen[client] += 1
        waiting.queue.sort(key=lambda event: places[event._id])


def _client(event: Event) -> str:
    return event.username or _address(event.request)


def _address(request: Any) -> str:
    return request.client.host if request and request.client else ""


def build(services: Services) -> gr.Blocks:
    """The window, not yet served: the tabs on its first page, and a page for each experiment."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)) as window:
        gr.HTML(f"<h1>{TITLE}</h1><p>{SENTENCE}</p>", elem_id="header", padding=False)
        if not services.engine.models:
            gr.Markdown("**No model is installed**: the weights folder is empty. Download the project again.")
        with gr.Tabs(elem_id="tabs") as tabs:
            for name, draw in TABS.items():
                with gr.Tab(name, id=address_of(name)):
                    draw(services)
            with gr.Tab("Lab", id="lab"):
                gr.Markdown(_LAB, elem_classes="note")
                gr.HTML(cards(LAB), padding=False, elem_id="lab")
        pages = [experiment.address for experiment in EXPERIMENTS]
        window.load(None, None, tabs, js=OPEN_LINKED_TAB.replace("PAGES", json.dumps(pages)), api_visibility="private")
    for experiment in EXPERIMENTS:
        with window.route(experiment.name, experiment.address, show_in_navbar=False):
            head = f"<p><a href='./?tab=lab'>← {TITLE} Lab</a></p><h1>{experiment.name}</h1>"
            gr.HTML(head, elem_id=f"{experiment.address}-header", elem_classes="header", padding=False)
            named = f"() => {{ document.title = {json.dumps(f'{experiment.name} · {TITLE}')}; }}"
            gr.on(None, None, js=named, api_visibility="private")
            experiment.build(services)
    window.queue(max_size=services.limits.waiting)
    # Gradio offers no place to hand in another queue.
    window._queue = FairQueue(
        services.limits.waiting_each,
        live_updates=True,
        concurrency_count=window.max_threads,
        update_intervals=1,
        max_size=services.limits.waiting,
        blocks=window,
    )
    return window


def serve(
    services: Services,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: tuple[str, str] | None = None,
    root_path: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
) -> None:
    """Serve the window until the process gets SIGTERM or Ctrl-C. Work under way is then finished, for as long as the
    limits say, and what visitors uploaded is removed; a second signal ends it at once.

    Behind a reverse proxy `root_path` is the path, or the whole address, that visitors know it by; with files of a
    certificate and its key it speaks TLS itself. Raises MofmeError where it cannot listen.
    """
    stop = threading.Event()

    def end(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with own_folder() as folder:
        os.environ.setdefault("GRADIO_TEMP_DIR", str(folder))
        threading.Thread(target=make_examples, args=(examples_folder(),), daemon=True).start()
        window = build(services)
        engine, limits = services.engine, services.limits
        about = service.routes(
            lambda: engine.restorer(next(iter(engine.models), None)), lambda: len(window._queue), limits, MEMORY, auth
        )
        _launch(
            window,
            server_name=host,
            server_port=port,
            root_path=root_path,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            ssl_verify=False,  # Gradio asks itself whether it is up, by a name that no certificate need hold
            auth=auth,
            share=False,
            inbrowser=False,
            prevent_thread_lock=True,
            _frontend=False,  # else Gradio gives up where its first page takes more than 3 seconds to come
            ssr_mode=False,
            footer_links=[],
            state_session_capacity=_SESSIONS,
            max_file_size=f"{limits.upload_megabytes}mb",
            allowed_paths=[str(examples_folder())],
            app_kwargs={
                "routes": [PLOTS, *map(_without_slash, EXPERIMENTS), *about],
                "middleware": [Middleware(service.Watched)],
                "exception_handlers": {404: service.nothing_there},
            },
            theme=theme(),
            css=CSS,
            js=ON_THE_PAGE,
        )
        stop.wait()
        service.finish_work(limits.stopping_seconds)
        window.close(verbose=False)


def _without_slash(experiment: Card) -> Route:
    """Whoever types its address with a slash at the end: the page's links would lead elsewhere."""

    def there(request: Request) -> RedirectResponse:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"../{experiment.address}{query}")

    return Route(f"/{experiment.address}/", there)


def _launch(window: gr.Blocks, server_port: int, **settings: Any) -> None:
    try:
        window.launch(server_port=server_port, **settings)
    except OSError as error:  # Gradio's words name settings that are not ours
        raise MofmeError(_why_closed(str(settings.get("server_name") or "127.0.0.1"), server_port)) from error


def _why_closed(host: str, port: int) -> str:
    host = host.removeprefix("[").removesuffix("]")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except PermissionError:
        return f"Port {port} is for administrators: choose one from 1024 up by --port."
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"{host} is no address of this machine: choose another by --host."
    return f"Port {port} is taken: is the app open already? Choose another by --port."


def theme() -> gr.themes.Base:
    """Slate and sea green, soft corners, no shadows, in light and dark; fonts that the visitor already has."""
    return gr.themes.Default(
        primary_hue=colors.teal,
        secondary_hue=colors.teal,
        neutral_hue=colors.slate,
        radius_size="lg",
        font=FONT,
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",  # readable on white
        block_shadow="none",
        block_label_background_fill="*background_fill_secondary",
        block_label_text_color="*body_text_color_subdued",
        color_accent="*primary_700",
        link_text_color="*primary_700",
        link_text_color_hover="*primary_800",
    )
