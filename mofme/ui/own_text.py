"""The text that a visitor hands in to learn from, and the one there is without."""

from pathlib import Path

from mofme.errors import TableError

SHIPPED_TEXT = Path(__file__).with_name("midsummer_nights_dream.txt")
"""A Midsummer Night's Dream, in the public domain."""

_CHARACTERS = 1_000_000


def read_own_text(path: Path) -> str:
    """A visitor's text, its first million characters. Raises TableError for what is no text in UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_CHARACTERS)
    except UnicodeDecodeError as error:
        raise TableError(f"{path.name} is no text in UTF-8: save it as plain text first.") from error
    if not text.strip():
        raise TableError(f"{path.name} is empty.")
    return text
