"""Weights on disk: `model.safetensors`, and `card.json` telling what they are and the checksum they must have."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS_FILE, atomic_file


@dataclass(frozen=True)
class ModelCard:
    """What a set of weights is: net and arguments, how it was trained on what, what it measured, its licence."""

    name: str
    net: str
    arguments: Mapping[str, Any]
    licence: str
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    sha256: str = ""


def check_replaceable(folder: Path, net: str) -> None:
    """Raises ModelError if `folder` holds a model of another kind than `net`, which saving there would destroy."""
    if (folder / CARD_FILE).is_file() and (held := load_card(folder)).net != net:
        raise ModelError(f"{folder} holds a {held.net!r} model, which would be replaced: name another folder")


def save_model(folder: Path, card: ModelCard, state: Mapping[str, Tensor]) -> ModelCard:
    """Write weights in half precision and the card with their checksum; each file appears whole or not at all.

    Raises ModelError for a number that half precision cannot hold.
    """
    half = _halved(state)
    content = save(half)
    parameters = card.parameters or sum(tensor.numel() for tensor in half.values())  # packed, a byte holds several
    card = replace(card, parameters=parameters, sha256=hashlib.sha256(content).hexdigest())
    # Both are on the disk before either takes its place: without room for one, the earlier pair stays.
    with atomic_file(folder / CARD_FILE, "w") as text, atomic_file(folder / WEIGHTS_FILE) as weights:
        text.write(json.dumps(asdict(card), indent=2) + "\n")
        text.flush()
        weights.write(content)
    return card


def checksum(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 that the card of a model with these weights holds: it tells whether something was made for it."""
    return hashlib.sha256(save(_halved(state))).hexdigest()


def load_card(folder: Path) -> ModelCard:
    """Read and check `card.json`. Raises ModelError naming the file and what is wrong with it."""
    path = folder / CARD_FILE
    try:
        return ModelCard(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: a model folder holds {WEIGHTS_FILE} and {CARD_FILE}") from None
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(f"{path} is not a model card: {error}") from error


def load_state(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """Load the weights as float32 after verifying their checksum. Raises ModelError if they are missing or damaged."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{path} is missing: download the model again")
    if _sha256(path) != card.sha256:
        raise ModelError(f"{path} is damaged: its checksum differs from the one in {CARD_FILE}; download it again")
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} holds no weights: {error}") from error
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    halved = {}
    for name, tensor in state.items():
        whole = tensor.detach().cpu().contiguous()
        halved[name] = whole.half() if whole.is_floating_point() else whole
        if not torch.equal(whole.isinf(), halved[name].isinf()):
            raise ModelError(f"{name} reaches {whole.abs().max():.3g}, more than half precision holds (65,504)")
    return halved


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
