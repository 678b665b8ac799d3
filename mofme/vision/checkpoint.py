"""The state that a training run goes on from, and what may be trained over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mofme.errors import ModelError
from mofme.files import CARD_FILE, atomic_file


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers and containers of them; the file appears whole or not at all."""
    with atomic_file(path) as file:
        torch.save(dict(state), file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """What `save_checkpoint` wrote; None where a run begins.

    Raises ModelError if the file is damaged, and where there is a model without it, which a new run would replace.
    """
    if not path.exists():
        if (path.parent / CARD_FILE).exists():
            raise ModelError(
                f"{path.parent} holds a model, but no {path.name} to go on from: a new run would replace the model, "
                "choose another folder for it"
            )
        return None
    try:
        # Of several processes on a CPU each calls it by its own number, which torch does not know how to load to.
        kind = torch.device(device).type
        state: dict[str, Any] = torch.load(path, map_location=kind, weights_only=True)
    except Exception as error:  # torch raises all kinds, and its own words advise to unpickle whatever is there
        raise ModelError(
            f"{path} is damaged or cannot be read ({type(error).__name__}): delete it, or choose another folder"
        ) from error
    return state
