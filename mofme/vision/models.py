"""The sizes of the restoration net, which of its weights may be binary, and the shipped models below `weights/`."""

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

# What Adam's learning rate is multiplied by for weights that work by their signs. The paper's own factor (Glorot's, 28
# to 34 here) is for weights that begin at random: from trained ones 300 steps at 3, at 10 and at that factor came to
# gains of +2.28, +2.38 and +2.21 dB at a rate of 3e-4, and to +2.08 with 10 at a rate of 1e-3.
BINARY_RATE = 10.0

_BINARY_LEVELS = ("encoder_quarter.", "middle.", "decoder_quarter.")


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


def stays_real(name: str) -> bool:
    """Whether the layer of a restoration net that is called so keeps real weights.

    Binary are the 3x3 convolutions at 1/4 and 1/8 of the picture: two thirds of all weights, and those that bear it
    best. Mean gain over the weathers on validation crops, in dB, lost by the small net when one part alone is made
    binary, as it is and after 40 steps:

        3x3 at 1/4      295k weights    0.4    0.0        up and down      66k weights    0.8    0.3
        3x3 at 1/8      664k weights    0.5    0.4        context          36k weights    0.5    0.7
        fed forward 1/8 147k weights    3.0    0.3        3x3 at 1/2       74k weights    2.9    1.4
        fed forward 1/4  66k weights    5.3    0.8        stem, head       10k weights    2.5    1.1

    After 300 steps with both 3x3 binary 0.16 dB were missing to the same steps with real weights (a file of 1.03
    instead of 2.82 MB), 0.31 dB with the feed-forwards at 1/8 as well (0.75 MB), 0.42 dB with up and down, too (0.62).
    Routers read their weights themselves, so theirs are real in any case.
    """
    return not (name.startswith(_BINARY_LEVELS) and name.endswith((".conv1", ".conv2")))


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
