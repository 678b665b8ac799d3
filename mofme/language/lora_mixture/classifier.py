"""The sentence encoder with banks of LoRA experts on some of its layers, and a linear head for the classes.

Axis names: B texts, T tokens, D features, C classes.
"""

from torch import Tensor, nn

from mofme.errors import ModelError
from mofme.language.llm_routing.minilm import DIM
from mofme.language.lora_mixture.bank import Recipe, wrap
from mofme.language.lora_mixture.encoder import LAYERS, Encoder, mean_of_tokens

# Query and value of the two highest layers: what lies below them can be computed once and kept.
UPPER = tuple(f"layers.{layer}.{part}" for layer in (LAYERS - 2, LAYERS - 1) for part in ("query", "value"))


class Classifier(nn.Module):
    """Hidden states that enter layer `first`, the lowest with a bank -> scores (B, C). Raises ModelError as `wrap`."""

    def __init__(self, encoder: Encoder, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(DIM, classes)  # first of all, so that it begins the same whatever the recipe
        self.banks = wrap(encoder, recipe)
        self.encoder = encoder
        wrapped = [name.split(".")[1] for name in self.banks if name.startswith("layers.")]
        if len(wrapped) < len(self.banks):
            raise ModelError(f"only layers.0 to layers.{LAYERS - 1} of the encoder can have banks")
        self.first = min(map(int, wrapped))

    def forward(self, x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
        scores_BC: Tensor = self.head(mean_of_tokens(self.encoder.run(x_BTD, seen_BT, self.first), seen_BT))
        return scores_BC
