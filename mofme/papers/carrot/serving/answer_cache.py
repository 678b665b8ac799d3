"""Answers kept for questions that come again, in the same words or in nearly the same.

Embeddings tell topics apart, not numbers, names or signs ("12 + 5" is next to "12 + 6"), and see the beginning of a
long text only; nor letters beyond ASCII, or which of two did what to the other. So a neighbour's answer serves only
short questions that agree in all of these.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mofme.language.sentence_encoder import question_of
from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.serving.chat import Tokens
from mofme.papers.carrot.serving.config import CacheSettings

COMPARABLE_CHARACTERS = 500  # well inside the encoder's window
LARGEST_ANSWER = 262_144  # bytes

# Words with letters beyond ASCII, numbers, negations, names inside a sentence, and signs: what a harmless rewording
# leaves as it is.
_FIXED = re.compile(
    r"\w*[^\W\d_A-Za-z]\w*|\d+(?:[.,]\d+)*|\b(?i:not?|never|without|\w+n['\u2019]t)\b|(?<=\s)[A-Z]\w*|[^\w\s.,;:?!'\"\u2019]"
)

_WORD = re.compile(r"\w+")

Key = tuple[str, str]  # frame and text
Fixed = tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """An answer as it went out: JSON, or the events of a stream that came to its end."""

    model: str
    content: bytes
    tokens: Tokens


class AnswerCache:
    """The `size` answers used last, each for `ttl` seconds, by everything of a request but its text, and by its text.

    What may serve as a neighbour is kept by that frame and fixed words, so that a look-up meets no other text.
    """

    def __init__(self, settings: CacheSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._entries: OrderedDict[Key, tuple[Kept, float]] = OrderedDict()  # each with the time that it is good until
        self._groups: dict[tuple[str, Fixed], dict[str, FloatArray]] = {}  # the embeddings by their texts

    def __len__(self) -> int:
        return len(self._entries)

    def same(self, key: Key) -> Kept | None:
        """The answer to the very same request."""
        if key not in self._entries:
            return None
        kept, expires = self._entries[key]
        if expires <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    def compares(self, text: str) -> bool:
        """Whether neighbours can serve for this text, so that it is worth embedding."""
        if self._settings.similarity == 1 or len(text) > COMPARABLE_CHARACTERS:
            return False
        return question_of(text) == text  # else the encoder would not see the examples in it

    def nearest(self, key: Key, embedding_D: FloatArray) -> Kept | None:
        """The answer to the nearest request that is similar enough."""
        best, found = self._settings.similarity, None
        for other, other_D in self._groups.get(_group(key), {}).items():
            if (similarity := float(other_D @ embedding_D)) >= best and not _reordered(other, key[1]):
                best, found = similarity, other
        return None if found is None else self.same((key[0], found))

    def keep(self, key: Key, embedding_D: FloatArray | None, kept: Kept) -> None:
        """Answers above LARGEST_ANSWER are not kept."""
        if len(kept.content) > LARGEST_ANSWER:
            return
        if key in self._entries:
            self._drop(key)
        if embedding_D is not None:
            self._groups.setdefault(_group(key), {})[key[1]] = embedding_D
        self._entries[key] = kept, self._clock() + self._settings.ttl
        while len(self._entries) > self._settings.size:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        del self._entries[key]
        group = _group(key) if len(key[1]) <= COMPARABLE_CHARACTERS else None  # a long text is in none
        if group in self._groups:
            self._groups[group].pop(key[1], None)
            if not self._groups[group]:
                del self._groups[group]


def _group(key: Key) -> tuple[str, Fixed]:
    """The frame, and the words and signs that both texts must have, in this order."""
    return key[0], tuple(_FIXED.findall(key[1]))


def _reordered(one: str, other: str) -> bool:
    """Whether they are the same words in another order: who did what to whom is then another question."""
    words, others = (_WORD.findall(text.casefold()) for text in (one, other))
    return words != others and sorted(words) == sorted(others)
