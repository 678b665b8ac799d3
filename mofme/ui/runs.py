"""Work that outlives its page: who opens its link again sees how far it is, and what came of it."""

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mofme.errors import Cancelled, MofmeError
from mofme.ui.memory import MEMORY
from mofme.ui.service import at_work
from mofme.ui.uploads import KEEP_SECONDS


class Job:
    """One piece of work; `check` and `report` raise as soon as it should stop. `told` gets the share that is done (0 to
    1), and what is being done.
    """

    def __init__(self, seconds: float, told: Callable[[float, str], Any] = lambda share, words: None) -> None:
        self._seconds, self._told = seconds, told
        self.why_stopped = ""
        self.begin()

    def begin(self) -> None:
        """Its time counts from now on."""
        self._deadline = time.monotonic() + self._seconds

    def cancel(self, why: str = "Stopped, as you asked.") -> None:
        """Stop at the next check; `why` is what the visitor is told."""
        self.why_stopped = self.why_stopped or why

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
        if self.why_stopped:
            raise Cancelled(self.why_stopped)

    def report(self, share: float, words: str) -> None:
        """Tell the visitor how far the work is. Raises as `check` does."""
        self.check()
        self._told(share, words)

    def wait(self) -> None:
        """Tell the visitor that others have to end before. Raises as `check` does."""
        self.report(0, "Waiting for others to end")


class Run:
    """The steps of one job in a thread of their own, cancelled when nobody has followed them for `away` seconds."""

    def __init__(self, steps: Callable[[Job], Iterator[Any]], seconds: float, away: float) -> None:
        self.job = Job(seconds, self._tell)
        self.ended_at: float | None = None
        self._away = away
        self.followers: set[str] = set()
        self._visits = 0
        self._changed = threading.Condition()
        self._told: tuple[float, str] | None = None
        self._steps = 0
        self._latest: Any = None
        self._error: Exception | None = None
        # What Gradio knows of the event holds in its thread as well.
        target = contextvars.copy_context().run
        threading.Thread(target=target, args=(self._run, steps), daemon=True).start()

    def follow(self, visitor: str, told: Callable[[float, str], Any]) -> Iterator[Any]:
        """The latest step, and those to come until the end. Raises what the work raised."""
        self.followers.add(visitor)
        self._visits += 1
        words, steps = None, 0

        def is_news() -> bool:
            left = visitor not in self.followers
            return left or self.ended_at is not None or self._told != words or self._steps != steps

        try:
            while visitor in self.followers:
                with self._changed:
                    self._changed.wait_for(is_news)
                    new_words, new_steps, latest, ended = self._told, self._steps, self._latest, self.ended_at
                if new_words and new_words != words:
                    told(*new_words)
                if new_steps != steps:
                    yield latest
                words, steps = new_words, new_steps
                if ended:
                    if self._error:
                        raise self._error
                    return
        finally:
            self.leave(visitor)

    def leave(self, visitor: str) -> None:
        with self._changed:
            self.followers.discard(visitor)
            self._changed.notify_all()
            if self.followers or self.ended_at:
                return
        timer = threading.Timer(self._away, self._cancel_if_left, (self._visits,))
        timer.daemon = True
        timer.start()

    def _cancel_if_left(self, visits: int) -> None:
        if not self.followers and visits == self._visits:  # nobody has looked since
            self.job.cancel()

    def _run(self, steps: Callable[[Job], Iterator[Any]]) -> None:
        try:
            for step in steps(self.job):
                with self._changed:
                    self._latest, self._steps = step, self._steps + 1
                    self._changed.notify_all()
        except Exception as error:  # told to whoever follows
            self._error = error
        with self._changed:
            self.ended_at = time.monotonic()
            self._changed.notify_all()

    def _tell(self, share: float, words: str) -> None:
        with self._changed:
            self._told = share, words
            self._changed.notify_all()


class Runs:
    """Runs of the start button `work` by the names in their links, one at work at a time; old ones are forgotten."""

    def __init__(self, away: float, work: str = "work") -> None:
        self._away, self._work = away, work
        self._runs: dict[str, Run] = {}
        self._turn = threading.Lock()

    def begin(self, name: str, steps: Callable[[Job], Iterator[Any]], seconds: float, needed: float = 0) -> Run:
        """Start the steps, which need so many bytes, in place of an earlier run of that name."""
        self._forget_old()
        self._runs[name] = Run(lambda job: self._in_turn(job, steps, needed), seconds, self._away)
        return self._runs[name]

    def find(self, name: str) -> Run | None:
        self._forget_old()
        return self._runs.get(name)

    def _forget_old(self) -> None:
        for name, run in list(self._runs.items()):
            if run.ended_at and run.ended_at < time.monotonic() - KEEP_SECONDS:
                self._runs.pop(name, None)

    def followed_by(self, visitor: str) -> list[Run]:
        """The runs that this visitor has open."""
        return [run for run in list(self._runs.values()) if visitor in run.followers]

    def _in_turn(self, job: Job, steps: Callable[[Job], Iterator[Any]], needed: float) -> Iterator[Any]:
        with turn(self._turn, job.check_cancelled):
            job.begin()  # waiting for others was no work
            with at_work(self._work, job), MEMORY.room(needed, job.wait):
                yield from steps(job)


@contextmanager
def turn(lock: threading.Lock, check: Callable[[], Any] = lambda: None) -> Iterator[None]:
    """Hold the lock; `check` is called now and then while others do, to raise where it should not be waited for."""
    while not lock.acquire(timeout=0.2):
        check()
    try:
        yield
    finally:
        lock.release()
