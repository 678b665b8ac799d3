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

SIZES: Mapping[str, Mapping[str, Any]] = {
    "small": {"widths": [32, 64, 96], "blocks": [2, 2, 4], "feed_forward": "mofme", "num_experts": 16},
    "base": {"widths": [64, 128, 192], "blocks": [2, 2, 4], "feed_forward": "mofme", "num_experts": 16},
}

# Which other model each asks whether there is haze. Two that learnt differently seldom misjudge the same picture: of 94
# clear photographs that small-real takes for hazy small does so with 28, and of 533 hazy ones with 497.
SECOND_OPINIONS = {"small-real": "small", "small": "small-real", "small-binary": "small-real"}

# What Adam's learning rate is multiplied by for weights that work by their signs. The paper's own factor (Glorot's, 28
# to 34 here) is for weights that begin at random: from trained ones 3, 10 and it came to +2.28, +2.38 and +2.21 dB.
BINARY_RATE = 10.0


def build_net(size: str) -> RestorationNet:
    """An untrained net of a named size. Raises ModelError for a name that is none."""
    if size not in SIZES:
        raise ModelError(f"no size is called {size!r}: choose one of {', '.join(SIZES)}")
    return RestorationNet(**SIZES[size])


def available_models(folder: Path = WEIGHTS) -> list[ModelCard]:
    """The cards of all models below `folder` that restore pictures, by the name that loads them: the folder's."""
    paths = sorted(folder.glob(f"*/{CARD_FILE}"))
    cards = [replace(load_card(path.parent), name=path.parent.name) for path in paths]
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
    best. After 40 steps the small net had lost 0.0 and 0.4 dB by them, 0.3 to 1.4 dB by any other part; after 300 steps
    0.16 dB to the same steps with real weights, in a file of 1.03 instead of 2.82 MB, and twice as much with the
    feed-forwards at 1/8 as well. Routers read their weights themselves, so theirs are real in any case.
    """
    return not (
        name.startswith(("encoder_quarter.", "middle.", "decoder_quarter.")) and name.endswith((".conv1", ".conv2"))
    )


def weights_bytes(folder: Path) -> int:
    """What a model takes on disk, its tone included."""
    return sum(path.stat().st_size for path in folder.rglob(WEIGHTS_FILE))


def load_tone(name: str) -> ToneNet | None:
    """The tone of a model, None if it has none: the folder `tone` in its own. Raises ModelError if it is damaged."""
    folder = model_folder(name) / "tone"
    if not (folder / CARD_FILE).is_file():
        return None
    tone, _ = load_as(folder, "tone", ToneNet)
    return tone


def load_second(name: str) -> RestorationNet | None:
    """The net that a model asks whether there is haze, None if it asks none. Raises ModelError if it is damaged."""
    other = SECOND_OPINIONS.get(name)
    return load_net(other)[0] if other else None


def _untrained(binary: Collection[str] = (), **arguments: Any) -> RestorationNet:
    """`binary` names the layers whose weights are."""
    net = RestorationNet(**arguments)
    binarise(net, keep=lambda name: name not in binary)
    return net
