"""The converted models of the last few visitors: each is as large as half a dense one, so that few can be kept."""

import itertools
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from mofme.errors import ModelError

Kept = TypeVar("Kept")


class Shelf(Generic[Kept]):
    """Keeps the newest `places` things, each under a ticket that only its visitor holds."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._things: OrderedDict[int, Kept] = OrderedDict()
        self._tickets = itertools.count(1)
        self._lock = threading.Lock()

    def put(self, thing: Kept) -> int:
        """Returns the ticket; the oldest thing goes if there is no place left."""
        with self._lock:
            ticket = next(self._tickets)
            self._things[ticket] = thing
            while len(self._things) > self._places:
                self._things.popitem(last=False)
            return ticket

    def get(self, ticket: int | None) -> Kept:
        """Raises ModelError, with what to do, for a thing that is not there (any more)."""
        with self._lock:
            if ticket is None:
                raise ModelError("Convert the model first, with the button above.")
            if ticket not in self._things:
                raise ModelError("Your converted model made room for other visitors' ones: convert again.")
            return self._things[ticket]
