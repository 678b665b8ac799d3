"""Binary nets on disk: eight weights in a byte, 1/32 of single precision, in the same folder of weights and card."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mofme.core.binary.layers import binary_layers
from mofme.core.model_card import ModelCard, load_state, save_model
from mofme.errors import ModelError

_BIT_VALUES = (128, 64, 32, 16, 8, 4, 2, 1)


def pack_signs(weight: Tensor) -> Tensor:
    """uint8 (ceil(n / 8),) holding one bit for each of the n weights, 1 for +1; the last byte is filled with zeros."""
    bits = (weight.detach().cpu().flatten() >= 0).to(torch.uint8)
    bits = torch.nn.functional.pad(bits, (0, -len(bits) % 8))
    return (bits.view(-1, 8) * torch.tensor(_BIT_VALUES, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_signs(packed: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The weights of -1.0 and +1.0 that `pack_signs` packed. Raises ModelError if `shape` holds more or fewer."""
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.numel() != -(-count // 8):
        raise ModelError(f"{packed.numel()} bytes of packed signs do not hold weights of shape {tuple(shape)}")
    bits = (packed[:, None] & torch.tensor(_BIT_VALUES, dtype=torch.uint8)) != 0
    return torch.where(bits.flatten()[:count], 1.0, -1.0).view(shape)


def save_packed(folder: Path, card: ModelCard, model: nn.Module) -> ModelCard:
    """Write a net with its binary weights packed, the rest in half precision, and its card.

    The card counts the numbers that the net is made of; a net without binary layers is written as it is.
    """
    state = dict(model.state_dict())
    card = replace(card, parameters=sum(tensor.numel() for tensor in state.values()))
    for name, layer in binary_layers(model):
        state[f"{name}.weight"] = pack_signs(layer.weight)
    return save_model(folder, card, state)


def load_packed(folder: Path, card: ModelCard, model: nn.Module) -> None:
    """Fill `model`, built as the card says, with what `save_packed` wrote: its real weights become -1 and +1.

    Raises ModelError if the weights are missing, damaged, or of another net.
    """
    state = load_state(folder, card)
    for name, layer in binary_layers(model):
        packed = state.get(f"{name}.weight")
        if packed is None:
            raise ModelError(f"{folder} holds no weights for {name}")
        state[f"{name}.weight"] = unpack_signs(packed, layer.weight.shape)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit the net: {error}") from error
