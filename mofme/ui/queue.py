"""The queue before the work: its limits in plain words, and clients in turn, however many jobs one of them has."""

from collections import Counter
from typing import Any

from gradio.queueing import Event, EventQueue, Queue

from mofme.ui.service import REFUSED, closing


class FairQueue(Queue):
    """Gradio's queue, in which the client who was served longest ago comes next, and none has more than `each` jobs of
    one kind waiting.

    A client is whoever is logged in, or else an address.
    """

    def __init__(self, each: int, **of_gradio: Any) -> None:
        super().__init__(**of_gradio)
        self._each = each
        self._served: dict[str, int] = {}  # the turn in which a client came last
        self._turn = 0

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """As Gradio's, which answers whether it was taken, and the event's name or why not."""
        waiting = self._waiting_for(self.blocks.fns.get(body.fn_index))
        client = username or _address(request)
        if closing.is_set():
            reason, words = "closing", "The app is being stopped. Try again in a minute."
        elif self.max_size is not None and len(self) >= self.max_size:
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
            self._served[_client(taken[0][0])] = self._turn
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

    def _waiting_for(self, function: Any) -> EventQueue | None:
        return self.event_queue_per_concurrency_id.get(function.concurrency_id) if function else None

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
