"""Running work: one model and one picture at a time, with cancelling, a time limit and errors in plain words."""

import html
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder

from mofme.errors import Cancelled, ModelError, MofmeError
from mofme.vision.restorer import Restorer, available_models

log = logging.getLogger(__name__)

# How long results may be fetched; longer than any job runs.
KEEP_SECONDS = 2 * 3600
_PREFIX = "mofme-"


class Engine:
    """Loads each model once, and lends it to one picture at a time so that memory stays bounded.

    `models` are the names a visitor may choose from, the default first; a name from outside them is refused.
    """

    def __init__(self, models: Sequence[str], load: Callable[[str], Restorer] = Restorer.from_pretrained) -> None:
        self.models = list(models)
        self.turn = threading.Lock()
        self._load = load
        self._loaded: dict[str, Restorer] = {}
        self._loading = threading.Lock()

    def restorer(self, name: str | None) -> Restorer:
        """The model called `name`. Raises ModelError if there is none, or its weights are damaged."""
        if name not in self.models:
            raise ModelError("No model is installed: download the project again, with its weights folder.")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            return self._loaded[name]


def shipped_models() -> list[str]:
    """Names of the shipped models that restore pictures, the one to start with first."""
    return sorted((card.name for card in available_models()), key=lambda name: (name != "small", name))


class Job:
    """One piece of work for one visitor; `check` raises as soon as it should stop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Raises Cancelled after `cancel`, MofmeError once the time is up."""
        self.check_cancelled()
        if self.late():
            raise MofmeError(f"This took longer than the limit of {self._seconds:.0f} s: ask for less at once.")

    def late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._deadline

    def check_cancelled(self) -> None:
        """Raises Cancelled after `cancel`: for work of many parts, which hands out those that are done in time."""
        if self._cancelled.is_set():
            raise Cancelled("Stopped, as you asked.")


class Jobs:
    """The jobs that run now, by visitor, so that a Cancel button finds the job it belongs to."""

    def __init__(self) -> None:
        self._running: dict[str, Job] = {}

    @contextmanager
    def running(self, request: gr.Request, seconds: float) -> Iterator[Job]:
        visitor, job = str(request.session_hash), Job(seconds)
        self._running[visitor] = job
        try:
            yield job
        finally:
            # A new job may have begun while this one was winding down.
            if self._running.get(visitor) is job:
                del self._running[visitor]

    def cancel(self, request: gr.Request) -> None:
        if job := self._running.get(str(request.session_hash)):
            job.cancel()


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


def new_folder() -> Path:
    """A fresh folder in Gradio's own temporary folder, whose files it serves; old ones are removed on the way."""
    root = Path(get_upload_folder())
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.glob(f"{_PREFIX}*"):
        if folder.stat().st_mtime < time.time() - KEEP_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))


def without_folders(message: str) -> str:
    """Visitors know their files by name; where the server keeps them is none of their business."""
    return re.sub(rf"{re.escape(get_upload_folder())}[/\\](?:[^/\\\s]+[/\\])*", "", message)
