"""Folders in which a study keeps what is finished: what was measured in another way is never taken for one's own."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofme.errors import ModelError
from mofme.files import atomic_file


def same_setting(path: Path, setting: Mapping[str, Any]) -> None:
    """Note the setting of a study beside what it keeps, or compare it with the one noted before.

    Raises ModelError naming the file and what differs. What was kept without any note is taken for the same.
    """
    told = json.loads(json.dumps(setting))
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(name for name in before.keys() | told.keys() if before.get(name) != told.get(name))
        if differing:
            raise ModelError(f"{path} tells of another {', '.join(differing)}: take another folder, or delete this one")
        return
    with atomic_file(path, "w") as file:
        json.dump(told, file, indent=2)


def fingerprint(value: object) -> int:
    """A number that another text, or other questions, hardly share."""
    return zlib.crc32(repr(value).encode("utf-8", "surrogatepass"))
