"""The sizes of the restoration net, and the shipped models: folders below `weights/`."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mofme.core.binary import binarise, unbinarise
from mofme.core.weights import ModelCard, load_as, load_card
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
    net, card = load_as(folder, "restoration", _untrained)
    unbinarise(net)
    return net, card


def weights_bytes(folder: Path) -> int:
    """What a model takes on disk, its tone included."""
    return sum(path.stat().st_size for path in folder.rglob(WEIGHTS_FILE))


def load_tone(name: str) -> ToneNet | None:
    """The tone of a model, None if it has none: the folder `tone` in its own. Raises ModelError if it is damaged."""
    folder = model_folder(name) / _TONE
    if not (folder / CARD_FILE).is_file():
        return None
    tone, _ = load_as(folder, "tone", ToneNet)
    return tone


def _untrained(binary: Collection[str] = (), **arguments: Any) -> RestorationNet:
    """`binary` names the layers whose weights are."""
    net = RestorationNet(**arguments)
    binarise(net, keep=lambda name: name not in binary)
    return net
