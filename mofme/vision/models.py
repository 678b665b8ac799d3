"""The sizes of the restoration net, and the shipped models: folders below `weights/`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mofme.core.binary.layers import binarise, unbinarise
from mofme.core.binary.packing import load_packed
from mofme.core.model_card import ModelCard, load_card, load_state
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS, WEIGHTS_FILE, model_folder
from mofme.vision.nets.tone import ToneNet
from mofme.vision.nets.unet import RestorationNet

_TONE = "tone"

SIZES: Mapping[str, Mapping[str, Any]] = {
    "small": {"widths": [32, 64, 96], "blocks": [2, 2, 4], "feed_forward": "mofme", "num_experts": 16},
    "base": {"widths": [64, 128, 192], "blocks": [2, 2, 4], "feed_forward": "mofme", "num_experts": 16},
}


def build_net(size: str) -> RestorationNet:
    """An untrained net of a named size. Raises ModelError for a name that is none."""
    if size not in SIZES:
        raise ModelError(f"no size is called {size!r}: choose one of {', '.join(SIZES)}")
    return RestorationNet(**SIZES[size])


def available_models(folder: Path = WEIGHTS) -> list[ModelCard]:
    """The cards of all models below `folder` that restore pictures, by the name that loads them: the folder's."""
    folders = [path.parent for path in sorted(folder.glob(f"*/{CARD_FILE}"))]
    cards = [replace(load_card(path), name=path.name) for path in folders]
    return [card for card in cards if card.net == "restoration"]


def load_net(name: str) -> tuple[RestorationNet, ModelCard]:
    """A trained net by the name of a shipped model, or by the path of a folder that `train` wrote.

    Binary weights are unpacked once, here: from then on the net is an ordinary one and takes an ordinary one's time.
    """
    folder = model_folder(name)
    if not (folder / CARD_FILE).is_file():
        names = ", ".join(card.name for card in available_models()) or "none"
        raise ModelError(f"no model is called {name!r}: shipped are {names}; or give a folder that `train` wrote")
    card = load_card(folder)
    if card.net != "restoration":
        raise ModelError(f"{folder} holds a {card.net!r} net, which does not restore pictures")
    try:
        net = _filled(folder, card)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the weights in {folder} do not fit its card: {error}") from error
    return net.eval(), card


def weights_bytes(folder: Path) -> int:
    """What a model takes on disk, its tone included."""
    return sum(path.stat().st_size for path in folder.rglob(WEIGHTS_FILE))


def load_tone(name: str) -> ToneNet | None:
    """The tone of a model, None if it has none: the folder `tone` in its own. Raises ModelError if it is damaged."""
    folder = model_folder(name) / _TONE
    if not (folder / CARD_FILE).is_file():
        return None
    card, tone = load_card(folder), ToneNet()
    try:
        tone.load_state_dict(load_state(folder, card))
    except RuntimeError as error:
        raise ModelError(f"the weights in {folder} do not fit its card: {error}") from error
    return tone.eval()


def _filled(folder: Path, card: ModelCard) -> RestorationNet:
    """The card names the layers whose weights are binary among the net's arguments, as `binary`."""
    arguments = dict(card.arguments)
    binary = arguments.pop("binary", ())
    net = RestorationNet(**arguments)
    if not binary:
        net.load_state_dict(load_state(folder, card))
        return net
    binarise(net, keep=lambda name: name not in binary)
    load_packed(folder, card, net)
    unbinarise(net)
    return net
