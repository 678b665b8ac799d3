"""What the app bears: clients, each with an address of its own, who upload small pictures, have them restored by the
API, fetch what came of them, and ask again a second later where they are turned away; and its memory while they do.
"""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from mofme.errors import MofmeError
from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import bootstrap
from mofme.measure.study import plot

SIDES = 64, 256
"""Pixels of the pictures, from and to: every size is another to the net."""
WARM_UP = 0.2
"""Of the time in which memory is measured: growth counts after it."""
_PAUSE = 1.0
_PATIENCE = 600.0
_EVERY = 5.0  # seconds, memory is asked for
_RESIDENT, _CPU = "process_resident_memory_bytes", "process_cpu_seconds_total"


@dataclass
class Load:
    """`clients` at once: seconds from upload to download of each picture that was restored, pauses included, and how
    often which words turned one away; wall-clock and the server's CPU seconds of all.
    """

    clients: int
    waits: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@dataclass
class Memory:
    """Minutes since the clients began, and resident megabytes of the server then."""

    clients: int
    minutes: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    def warm(self) -> float:
        """Megabytes at the end of the warm-up."""
        return float(np.interp(WARM_UP * self.minutes[-1], self.minutes, self.megabytes))

    def growth(self) -> Figure:
        """Megabytes an hour after WARM_UP: the median slope of all pairs of minutes' medians (Theil and Sen)."""
        from scipy import stats

        minutes, megabytes = np.array(self.minutes), np.array(self.megabytes)
        warm = [minute for minute in np.unique(minutes // 1) if minute >= WARM_UP * minutes[-1]]
        medians = [np.median(megabytes[minutes // 1 == minute]) for minute in warm]
        if len(warm) < 3:
            raise MofmeError("Growth of memory needs four minutes at least.")
        slope, _, low, high = (60 * float(one) for one in stats.theilslopes(medians, warm))
        return Figure(slope, low, high)


def measure_load(address: str, clients: int, pictures: int, done: Callable[[float], Any] = lambda share: None) -> Load:
    """So many pictures, by so many clients at once. `done` is told the share that is done."""
    load = Load(clients)
    before, began = _told(address, _CPU), time.perf_counter()
    sent = islice(small_pictures(), pictures)
    asyncio.run(_work(address, load, sent, lambda: done(len(load.waits) / pictures)))
    load.seconds, load.cpu_seconds = time.perf_counter() - began, _told(address, _CPU) - before
    return load


def measure_memory(
    address: str, clients: int, minutes: float, late: Callable[[float], Any] = lambda share: None
) -> Memory:
    """What the server holds while so many clients work for so long. `late` is told the share of time that is over."""
    memory, began = Memory(clients), time.monotonic()

    async def watch() -> None:
        until_late = takewhile(lambda _: time.monotonic() < began + 60 * minutes, small_pictures())
        work = asyncio.create_task(_work(address, Load(clients), until_late, lambda: None))
        while not work.done():
            held = await asyncio.to_thread(_told, address, _RESIDENT)
            memory.minutes.append((time.monotonic() - began) / 60)
            memory.megabytes.append(held / 1e6)
            late(min(1.0, memory.minutes[-1] / minutes))
            await asyncio.wait([work], timeout=_EVERY)
        await work

    asyncio.run(watch())
    return memory


def small_pictures() -> Iterator[bytes]:
    """JPEGs of random sizes and colours without end, the same each time."""
    generator = np.random.default_rng(0)
    while True:
        width, height = generator.integers(*SIDES, 2, endpoint=True)
        coarse = Image.fromarray(generator.integers(256, size=(6, 6, 3), dtype=np.uint8))
        file = io.BytesIO()
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, "jpeg", quality=90)
        yield file.getvalue()


@contextmanager
def running(command: Sequence[str], address: str, **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """A server in a process of its own, once it answers at `address`; ended by SIGTERM, also where that ends us. Raises
    MofmeError if it ends before, or does not answer within minutes.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if is_main else None
    root = str(Path(__file__).parents[2])
    places = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    server = subprocess.Popen(command, cwd=root, env={**os.environ, "PYTHONPATH": places}, text=True, **more)
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            if server.poll() is not None:
                raise MofmeError(f"The server ended before it answered, with {server.returncode}.")
            try:
                httpx.get(address, verify=False)
                break
            except httpx.TransportError as error:
                if time.monotonic() > until:
                    raise MofmeError(f"The server did not answer at {address} ({error}).") from error
                time.sleep(0.2)
        yield server
    finally:
        server.terminate()
        server.wait(timeout=60)
        if is_main:
            signal.signal(signal.SIGTERM, before)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def own_app() -> Iterator[str]:
    """The address of an app of this project, started for it on a free port and ended after it."""
    address = f"http://127.0.0.1:{(port := free_port())}/"
    command = [sys.executable, "-m", "mofme", "app", "--port", str(port)]
    with running(command, f"{address}health", stdout=subprocess.DEVNULL):
        yield address


def draw_memory(memory: Memory, path: Path) -> None:
    """Megabytes by minutes, from 0 up; what comes before the dashed line is warm-up."""
    with plot(path, 6, 2.6) as (axes,):
        axes.plot(memory.minutes, memory.megabytes)
        axes.axvline(WARM_UP * memory.minutes[-1], color="0.5", linestyle="--", linewidth=1)
        axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=(0, 1.1 * max(memory.megabytes)))
        axes.set_title(f"The app under {_clients(memory.clients)}", fontsize="medium")


def as_result(measured: Sequence[Load] | Memory, command: str) -> Result:
    """Of loads, a row for each number of clients and for the words that turned them away; of memory, one."""
    if isinstance(measured, Memory):
        growth, held = measured.growth(), measured.megabytes
        figures = {"minutes": measured.minutes[-1] // 1, "at first, MB": held[0], "warm, MB": measured.warm()}
        told = {name: Figure(value) for name, value in {**figures, "most, MB": max(held)}.items()}
        rows = [Row("memory", _clients(measured.clients), {**told, "growth, MB an hour": growth})]
        room, claim = "service_memory", "Memory is flat after warm-up."
        verdict = f"{growth.text(signed=True)} MB an hour after warm-up."
        interval = "95 %, by ranks of the slopes between minutes (Theil and Sen)"
    else:
        rows = [Row("clients at once", _clients(load.clients), _figures(load)) for load in measured]
        for words in dict.fromkeys(words for load in measured for words in load.refusals):
            counts = {_clients(load.clients): Figure(load.refusals[words]) for load in measured}
            rows.append(Row("turned away, to ask again", words, counts))
        rates = ", ".join(f"{_clients(load.clients)}: {_rate(load):.2f}" for load in measured)
        refused = sum(load.refusals.total() for load in measured)
        room, claim = "service", "64 clients at once are served, or told in words to wait."
        verdict = f"Pictures a second: {rates}. All were restored; {refused} requests were turned away "
        verdict += "with what to do, and asked again."
        interval = "95 % bootstrap over the pictures"
    return Result(room, "", claim, verdict, command, rows, (0,), interval=interval, machine=this_machine())


def _figures(load: Load) -> dict[str, Figure]:
    figures = {
        "pictures": Figure(len(load.waits)),
        "turned away": Figure(load.refusals.total()),
        "pictures a second": Figure(_rate(load)),
    }
    for percent in (50, 95, 99):
        of = partial(np.percentile, q=percent)
        figures[f"p{percent}, s"] = bootstrap(np.array(load.waits), of)
    return figures | {"CPU s a picture": Figure(load.cpu_seconds / len(load.waits))}


def _rate(load: Load) -> float:
    return len(load.waits) / load.seconds


def _clients(count: int) -> str:
    return f"{count} client{'s' * (count > 1)}"


async def _work(address: str, load: Load, pictures: Iterator[bytes], done: Callable[[], Any]) -> None:
    """Raises MofmeError where a picture that was taken is not restored, in the app's words, or it does not answer."""

    async def ask_on(number: int) -> None:
        headers = {"X-Forwarded-For": f"198.51.100.{number % 250}"}  # of no machine (RFC 5737)
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=_PATIENCE) as client:
            for picture in pictures:
                began = time.perf_counter()
                try:
                    await _restored(client, picture, load.refusals)
                except httpx.HTTPError as error:
                    raise MofmeError(f"{address}: the app stopped answering ({error}).") from error
                load.waits.append(time.perf_counter() - began)
                done()

    await asyncio.gather(*(ask_on(number) for number in range(load.clients)))


async def _restored(client: httpx.AsyncClient, picture: bytes, refusals: Counter[str]) -> bytes:
    """What came of a picture. Raises MofmeError, and httpx.HTTPError where the app does not answer."""
    sent = await client.post("gradio_api/upload", files={"files": ("picture.jpg", picture)})
    path = sent.raise_for_status().json()[0]
    asked = {"path": {"path": path, "meta": {"_type": "gradio.FileData"}}}
    while True:
        answer = await client.post("gradio_api/call/v2/restore", json=asked)
        if answer.status_code != 503:
            break
        refusals[answer.json()["detail"]] += 1
        await asyncio.sleep(_PAUSE)
    event = answer.raise_for_status().json()["event_id"]
    stream = (await client.get(f"gradio_api/call/v2/restore/{event}")).raise_for_status().text
    kind, data = stream.strip().rpartition("event: ")[2].split("\ndata: ")
    if kind != "complete":
        raise MofmeError(f"A picture was not restored: {data}")
    return (await client.get(json.loads(data)[0]["url"])).raise_for_status().content


def _told(address: str, what: str) -> float:
    """What the server tells Prometheus of itself. Raises MofmeError where it does not."""
    try:
        text = httpx.get(f"{address}metrics", timeout=_PATIENCE).raise_for_status().text
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MofmeError(f"{address}: no app tells its /metrics there ({error}).") from error
    told = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    if what not in told:
        raise MofmeError(f"{address}: the app does not tell its {what}, which it can on Linux alone.")
    return told[what]
