"""The sentence encoder with banks of LoRA experts on some of its layers, and a linear head for the classes.

Axis names: B texts, T tokens, D features, C classes.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from mofme.errors import ModelError
from mofme.language.lora_mixture.bank import Recipe, wrap
from mofme.language.minilm import BLOCKS, DIM, MiniLM

WINDOW = 32  # tokens of a text; what follows in longer ones is left out
# The last feed-forward network, as in MixLoRA: what lies below it can be computed once and kept.
LAST = (f"blocks.{BLOCKS - 1}.widen", f"blocks.{BLOCKS - 1}.narrow")


class Classifier(nn.Module):
    """Hidden states that enter block `first`, the lowest with a bank -> scores (B, C). Raises ModelError as `wrap`."""

    def __init__(self, encoder: MiniLM, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.banks = wrap(encoder, recipe)
        self.encoder = encoder
        self.head = nn.Linear(DIM, classes)
        self.first = lowest_block(recipe)

    def forward(self, x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
        scores_BC: Tensor = self.head(features(self.encoder.run(x_BTD, seen_BT, self.first), seen_BT))
        return scores_BC


def features(x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
    """The mean (B, D) over each text's tokens, scaled so that the features have variance 1.

    Those of the encoder are so small that at the banks' learning rate a head would hardly learn.
    """
    seen_BT1 = seen_BT.unsqueeze(-1).to(x_BTD.dtype)
    return F.layer_norm((x_BTD * seen_BT1).sum(1) / seen_BT1.sum(1), (DIM,))


def lowest_block(recipe: Recipe) -> int:
    """The first of the encoder's blocks that has a bank. Raises ModelError for names without a block's number."""
    try:
        return min(int(name.removeprefix("blocks.").split(".")[0]) for name in recipe.wrapped)
    except ValueError:
        raise ModelError(f"{recipe.wrapped} has to name layers of the encoder as blocks.11.widen does") from None
