"""Embeddings kept on disk, so that a table is embedded once: texts are kept as checksums only."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SCHEMA = "CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT"
_FORGET = "DELETE FROM embeddings WHERE rowid <= (SELECT max(rowid) FROM embeddings) - ?"
_QUESTIONS = 500  # sqlite's limit of variables in one statement was 999 for long


class EmbeddingCache:
    """Float32 vectors by version and text in one SQLite file; several processes may use it at once.

    It is a convenience and never the reason why something fails: what cannot be read is computed again, a damaged file
    is begun anew, and where nothing can be written nothing is. At most `limit` vectors stay, the youngest.
    """

    def __init__(self, path: Path, version: str, limit: int = 200_000) -> None:
        self.path = path
        self.version = version
        self.limit = limit

    def get(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those texts that are known."""
        keys = {self._key(text): text for text in texts}
        found: dict[str, NDArray[np.float32]] = {}

        def read(database: sqlite3.Connection) -> None:
            for group in _groups(list(keys)):
                marks = ",".join("?" * len(group))
                rows = database.execute(f"SELECT key, vector FROM embeddings WHERE key IN ({marks})", group)
                found.update((keys[key], np.frombuffer(vector, np.float32)) for key, vector in rows)

        self._try(read)
        return found

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep these vectors, all or none of them."""
        rows = [(self._key(text), vector.astype(np.float32).tobytes()) for text, vector in vectors.items()]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)
                database.execute(_FORGET, (self.limit,))

        self._try(write)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self.version}\0{text}".encode("utf-8", "surrogatepass")).digest()

    def _try(self, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as database:
                database.execute(_SCHEMA)
                work(database)
        except (sqlite3.OperationalError, OSError):  # locked for long, a full disk, a folder that may not be written
            return
        except sqlite3.DatabaseError:  # damaged
            self.path.unlink(missing_ok=True)


def _groups(keys: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(keys), _QUESTIONS):
        yield keys[start : start + _QUESTIONS]
