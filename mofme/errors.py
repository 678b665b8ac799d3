"""Every error this package raises on purpose; each message says what was wrong with which file and what to do.

MofmeError
├── PictureError              a file cannot be read or written as a picture or a video
│   └── PictureTooLargeError  more pixels or bytes than the limit in force
├── ArchiveError              a ZIP that is broken, too large or unsafe to open
├── ModelError                weights are missing, damaged or unknown
├── ResultError               a measured result is missing or damaged
├── TableError                a table of models' answers cannot be used
├── ConfigError               a file of settings cannot be used
└── Cancelled                 the user stopped the work
"""


class MofmeError(Exception):
    """Root of the tree: catch it to catch every error meant for the user."""


class PictureError(MofmeError):
    """A file cannot be read or written as a picture or a video."""


class PictureTooLargeError(PictureError):
    """A picture, or a frame, has more pixels or bytes than the limit in force."""


class ArchiveError(MofmeError):
    """A ZIP archive is broken, too large or unsafe to open."""


class ModelError(MofmeError):
    """A model's weights are missing, damaged or unknown."""


class ResultError(MofmeError):
    """A measured result is missing, damaged or not a number."""


class TableError(MofmeError):
    """A table of what language models made of prompts is misaligned, has blanks or cannot be read."""


class ConfigError(MofmeError):
    """A file of settings cannot be read, or a setting in it cannot be used."""


class Cancelled(MofmeError):  # noqa: N818 - reads as what happened, as in asyncio and concurrent.futures
    """The user stopped the work."""
