"""Weights on disk: `model.safetensors`, and `card.json` telling what they are and the checksum they must have.

Real weights take half precision, binary ones a bit: eight in a byte, 1/32 of single precision.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mofme.core.binary import binary_layers
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS_FILE, atomic_file

Model = TypeVar("Model", bound=nn.Module)
Read = TypeVar("Read")


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
    """Write weights, `as_stored`, and the card with their checksum; the pair appears whole or not at all.

    Raises ModelError for a number that is not finite.
    """
    stored = as_stored(state)
    content = save(stored)
    parameters = card.parameters or sum(tensor.numel() for tensor in stored.values())  # packed, a byte holds several
    card = replace(card, parameters=parameters, sha256=hashlib.sha256(content).hexdigest())
    # Both are on the disk before either takes its place: without room for one, the earlier pair stays.
    with atomic_file(Path(folder, CARD_FILE), "w") as text, atomic_file(Path(folder, WEIGHTS_FILE)) as weights:
        text.write(json.dumps(asdict(card), indent=2) + "\n")
        text.flush()
        weights.write(content)
    return card


def save_packed(folder: Path, card: ModelCard, model: nn.Module) -> ModelCard:
    """`save_model` of a net, its binary weights packed; the card counts the numbers that the net is made of."""
    state = dict(model.state_dict())
    card = replace(card, parameters=sum(tensor.numel() for tensor in state.values()))
    for name, layer in binary_layers(model):
        state[f"{name}.weight"] = pack_signs(layer.weight)
    return save_model(folder, card, state)


def load_card(folder: Path) -> ModelCard:
    """Read and check `card.json`. Raises ModelError naming the file and what is wrong with it."""
    path = Path(folder, CARD_FILE)
    try:
        return ModelCard(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing: a model folder holds {WEIGHTS_FILE} and {CARD_FILE}") from None
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(f"{path} is not a model card: {error}") from error


def load_state(folder: Path, card: ModelCard) -> dict[str, Tensor]:
    """Load the weights as float32 after verifying their checksum. Raises ModelError if they are missing or damaged."""
    path = Path(folder, WEIGHTS_FILE)
    if not path.is_file():
        raise ModelError(f"{path} is missing: download the model again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != card.sha256:
        raise ModelError(f"{path} is damaged: its checksum differs from the one in {CARD_FILE}; download it again")
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} holds no weights: {error}") from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def load_as(folder: Path, kind: str, build: Callable[..., Model]) -> tuple[Model, ModelCard]:
    """The model in a folder, in eval mode, and its card.

    `build` makes it from the card's arguments, given by name; its binary layers get their signs, -1.0 and +1.0, as
    weights. Raises ModelError if the folder holds no model, one of another kind, or one that does not fit its card.
    """

    def filled(card: ModelCard, state: dict[str, Tensor]) -> tuple[Model, ModelCard]:
        model = build(**card.arguments)
        for name, layer in binary_layers(model):
            if (packed := state.get(f"{name}.weight")) is not None:
                state[f"{name}.weight"] = unpack_signs(packed, layer.weight.shape)
        model.load_state_dict(state)
        return model.eval(), card

    return read_as(folder, kind, filled)


def read_as(folder: Path, kind: str, make: Callable[[ModelCard, dict[str, Tensor]], Read]) -> Read:
    """What `make` makes of the card and the weights in a folder; otherwise as `load_as`."""
    card = load_card(folder)
    if card.net != kind:
        raise ModelError(f"{folder} holds a model of another kind: {card.net}, not {kind}; name another folder")
    state = load_state(folder, card)
    try:
        return make(card, state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{folder} does not hold what its card says: {error}; download it again, or train it anew"
        ) from error


def as_stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as files hold them: in half precision, except tensors with a number beyond its range of 65,504.

    Raises ModelError for a number that is not finite.
    """
    stored = {}
    for name, tensor in state.items():
        stored[name] = whole = tensor.detach().cpu().contiguous()
        if not whole.isfinite().all():
            raise ModelError(f"{name} holds numbers that are not finite: the model has not been saved")
        if whole.is_floating_point():
            half = whole.half()
            stored[name] = half if half.isfinite().all() else whole.float()
    return stored


def checksum(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 that the card of a model with these weights holds: it tells whether something was made for it."""
    return hashlib.sha256(save(as_stored(state))).hexdigest()


def pack_signs(weight: Tensor) -> Tensor:
    """uint8 (ceil(n / 8),) holding one bit for each of the n weights, 1 for +1; the last byte is filled with zeros."""
    return torch.from_numpy(np.packbits((weight.detach().cpu().flatten() >= 0).numpy()))


def unpack_signs(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The weights of -1.0 and +1.0 that `pack_signs` packed. Raises ValueError if `shape` holds more or fewer."""
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != -(-count // 8):
        raise ValueError(f"{packed.numel()} bytes of packed signs do not hold weights of shape {tuple(shape)}")
    bits = torch.from_numpy(np.unpackbits(packed.numpy(), count=count))
    return (2.0 * bits - 1).view(shape)
