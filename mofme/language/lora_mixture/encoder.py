"""all-MiniLM-L6-v2 of `llm_routing.minilm` as layers that can be wrapped and that gradients go through, in float32.

Axis names: B texts, T tokens, D features. Source of the weights: the pip package that the routers of prompts use.
"""

from collections.abc import Sequence
from functools import cache

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.errors import ModelError
from mofme.language.llm_routing.minilm import DIM, model_folder

BLOCKS = 12  # attention and feed-forward in turn
WINDOW = 32  # tokens; what follows in longer texts is left out
_HEADS = 12
_HIDDEN = 1536
_EPSILON = 1e-12
# Our names for the package's, so that the name of a linear layer says what it is.
_ATTENTION = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
}
_FEED_FORWARD = {"widen": "intermediate.dense", "narrow": "output.dense", "norm": "output.LayerNorm"}


class Attention(nn.Module):
    """Attention between the tokens of a text, added to its input and normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.attended = (nn.Linear(DIM, DIM) for _ in range(4))
        self.norm = nn.LayerNorm(DIM, _EPSILON)

    def forward(self, x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
        query, key, value = (
            part(x_BTD).unflatten(-1, (_HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        mask = None if bool(seen_BT.all()) else seen_BT[:, None, None]
        attended_BTD = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)
        return self.norm(x_BTD + self.attended(attended_BTD))


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, added to their input and normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(DIM, _HIDDEN), nn.Linear(_HIDDEN, DIM)
        self.norm = nn.LayerNorm(DIM, _EPSILON)

    def forward(self, x_BTD: Tensor, seen_BT: Tensor) -> Tensor:
        return self.norm(x_BTD + self.narrow(F.gelu(self.widen(x_BTD))))


class Encoder(nn.Module):
    """Token ids -> hidden states, through `blocks` that can be run one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, DIM)
        self.positions = nn.Embedding(512, DIM)
        self.norm = nn.LayerNorm(DIM, _EPSILON)
        self.blocks = nn.ModuleList(FeedForward() if block % 2 else Attention() for block in range(BLOCKS))

    @classmethod
    def pretrained(cls) -> "Encoder":
        """With the package's weights, frozen. Raises ModelError if the package is missing or damaged."""
        path = model_folder() / "model.safetensors"
        encoder = cls()
        try:
            stored = load_file(path)
            types_2D = stored["embeddings.token_type_embeddings.weight"]
            state = {
                "words.weight": stored["embeddings.word_embeddings.weight"],
                "positions.weight": stored["embeddings.position_embeddings.weight"] + types_2D[0],
            }
            for part in ("weight", "bias"):
                state[f"norm.{part}"] = stored[f"embeddings.LayerNorm.{part}"]
                for block in range(BLOCKS):
                    for ours, theirs in (_FEED_FORWARD if block % 2 else _ATTENTION).items():
                        state[f"blocks.{block}.{ours}.{part}"] = stored[f"encoder.layer.{block // 2}.{theirs}.{part}"]
            encoder.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"the language encoder in {path} is damaged: {error}; install its package again"
            ) from error
        return encoder.eval().requires_grad_(False)

    def embed(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """What enters the first block (B, T, D), and which of it are tokens, not padding (B, T)."""
        lengths_B = torch.tensor([len(row) for row in ids])
        longest = int(lengths_B.max())
        ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        x_BTD = self.norm(self.words(ids_BT) + self.positions.weight[:longest])
        return x_BTD, torch.arange(longest) < lengths_B[:, None]

    def run(self, x_BTD: Tensor, seen_BT: Tensor, first: int = 0, stop: int = BLOCKS) -> Tensor:
        """Blocks `first` to `stop`, the latter not included."""
        for block in self.blocks[first:stop]:
            x_BTD = block(x_BTD, seen_BT)
        return x_BTD


def read_tokens(text: str) -> tuple[list[int], list[str]]:
    """A text's token ids and the pieces of words that they stand for, at most WINDOW, with a mark at either end."""
    encoded = _tokenizer().encode(text)
    return encoded.ids, encoded.tokens


@cache
def _tokenizer() -> Tokenizer:
    path = model_folder() / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelError(f"{path} is damaged: {error}; install its package again") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(WINDOW)
    return tokenizer
