"""A small language model, its vocabulary and the folder that keeps them.

A decoder-only transformer: RMSNorm, rotary positions, causal attention, and a feed-forward of any kind.

Axis names: B texts, T tokens, V vocabulary, D features, H heads, K features of a head, S tokens seen so far.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.experts import FeedForward, FeedForwardExperts
from mofme.core.moe import MoE
from mofme.core.routers import ROUTERS, RouterKind
from mofme.core.weights import ModelCard, load_as, save_model
from mofme.errors import ModelError
from mofme.files import atomic_file
from mofme.language.text import readable

NET = "small-lm"
VOCABULARY_FILE = "vocabulary.json"
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class Shape:
    """How large the model is. `router` "dense" stands for one feed-forward of `hidden` features and no router.

    With a router, each of `experts` feed-forwards has `hidden` features, and a token visits `top_k` of them.
    """

    vocabulary: int = 1024
    dim: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 256
    router: RouterKind | Literal["dense"] = "linear"
    experts: int = 8
    top_k: int = 2

    def __post_init__(self) -> None:
        if self.router != "dense" and self.router not in get_args(RouterKind):
            raise ValueError(f"a router is one of dense, {', '.join(get_args(RouterKind))}, not {self.router!r}")
        if self.dim % (2 * self.heads):
            raise ValueError(f"{self.dim} features do not make {self.heads} heads of an even number of features")


class KeysAndValues:
    """What attention remembers of the tokens so far, a pair (B, H, S, K) for each layer."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def extend(self, layer: int, key_BHTK: Tensor, value_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, these included."""
        if layer in self.layers:
            key_BHSK, value_BHSK = self.layers[layer]
            key_BHTK, value_BHTK = torch.cat([key_BHSK, key_BHTK], 2), torch.cat([value_BHSK, value_BHTK], 2)
        self.layers[layer] = key_BHTK, value_BHTK
        return key_BHTK, value_BHTK


class SmallLM(nn.Module):
    """Maps token ids (B, T) to logits (B, T, V) of the token after each.

    Matrices are drawn by `seed` and their own names: models that differ in their routers alone start alike in all else.
    """

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.dim)
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.norm = nn.RMSNorm(shape.dim)
        _draw(self, seed)

    def forward(self, ids_BT: Tensor, past: KeysAndValues | None = None) -> Tensor:
        """With `past`, `ids_BT` are the tokens that follow it, and are added to it."""
        x_BTD = self.embedding(ids_BT)
        turns_TK = _turns(len(past or ()), ids_BT.shape[1], self.shape.dim // self.shape.heads, x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD, turns_TK, past)
        return F.linear(self.norm(x_BTD), self.embedding.weight)


class Block(nn.Module):
    """Attention, then the feed-forward, each beside the residual stream and normalised on its way in."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.heads, self.layer = shape.heads, layer
        self.attention_norm = nn.RMSNorm(shape.dim)
        self.query_key_value = nn.Linear(shape.dim, 3 * shape.dim, bias=False)
        self.attention_out = nn.Linear(shape.dim, shape.dim, bias=False)
        self.feed_forward_norm = nn.RMSNorm(shape.dim)
        self.feed_forward = _feed_forward(shape)

    def forward(self, x_BTD: Tensor, turns_TK: Tensor, past: KeysAndValues | None) -> Tensor:
        x_BTD = x_BTD + self._attend(self.attention_norm(x_BTD), turns_TK, past)
        y_BTD: Tensor = x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))
        return y_BTD

    def _attend(self, x_BTD: Tensor, turns_TK: Tensor, past: KeysAndValues | None) -> Tensor:
        projected = self.query_key_value(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = projected.unbind()
        query, key = _rotate(query, turns_TK), _rotate(key, turns_TK)
        seen = len(key[0, 0])
        if past is not None:
            key, value = past.extend(self.layer, key, value)
        if key.shape[2] == seen:
            y_BHTK = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            sees_TS = torch.ones(seen, key.shape[2], dtype=torch.bool, device=key.device).tril(key.shape[2] - seen)
            y_BHTK = F.scaled_dot_product_attention(query, key, value, attn_mask=sees_TS)
        y_BTD: Tensor = self.attention_out(y_BHTK.transpose(1, 2).flatten(2))
        return y_BTD


@torch.inference_mode()
def generate(model: SmallLM, ids_BT: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """`count` tokens (B, count) that follow `ids_BT`, drawn at temperature 1."""
    past = KeysAndValues()
    written: list[Tensor] = []
    for _ in range(count):
        logits_BV = model(written[-1] if written else ids_BT, past)[:, -1]
        written.append(torch.multinomial(logits_BV.softmax(-1), 1, generator=generator))
    return torch.cat([ids_BT[:, :0], *written], dim=1)


def _feed_forward(shape: Shape) -> nn.Module:
    if shape.router == "dense":
        return FeedForward(shape.dim, shape.hidden)
    router = ROUTERS[shape.router](shape.dim, shape.experts, shape.top_k)
    return MoE(router, FeedForwardExperts(shape.dim, shape.hidden, shape.experts))


def _draw(model: nn.Module, seed: int) -> None:
    """Normal with variance 1 / inputs for every matrix, 0 for every bias; the norms' weights stay 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name.rpartition(".")[2]:
                parameter.zero_()
            elif parameter.dim() > 1:
                generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
                parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)


def _turns(start: int, count: int, features: int, like: Tensor) -> Tensor:
    """Cosines and sines, one after the other, of the angles of positions `start` to `start + count`."""
    frequency = _ROTARY_BASE ** -torch.arange(0, 1, 2 / features, device=like.device)
    angle = torch.arange(start, start + count, device=like.device)[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1).to(like.dtype)


def _rotate(x_BHTK: Tensor, turns_TK: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021): the first half of the features turns against the second."""
    a, b = x_BHTK.chunk(2, dim=-1)
    cos, sin = turns_TK.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Vocabulary:
    """Tokens of one to several bytes, learned from a text: byte-level BPE, so that every text can be told."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @classmethod
    def learn(cls, texts: Sequence[str], size: int = 1024) -> "Vocabulary":
        """The 256 bytes, and what they are most often merged to in `texts` until there are `size` tokens.

        Raises ValueError for a size below 256.
        """
        if size < 256:
            raise ValueError(f"a vocabulary holds at least the 256 bytes, not {size} tokens")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(map(readable, texts), trainer)
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        return list(self._tokenizer.encode(readable(text)).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; bytes that make no character become the sign for it."""
        return str(self._tokenizer.decode(list(ids)))

    def save(self, folder: Path) -> None:
        with atomic_file(folder / VOCABULARY_FILE, "w") as file:
            file.write(self._tokenizer.to_str())

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Raises ModelError naming the file."""
        path = folder / VOCABULARY_FILE
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ModelError(f"{path} is not a vocabulary: {error}") from error


def save_lm(
    folder: Path,
    model: SmallLM,
    vocabulary: Vocabulary,
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> ModelCard:
    """Write a model in half precision, as `load_lm` reads it. The card comes last: with it the folder is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.save(folder)
    card = ModelCard(folder.name, NET, asdict(model.shape), licence, training, metrics)
    return save_model(folder, card, model.state_dict())


def load_lm(folder: Path) -> tuple[SmallLM, Vocabulary]:
    """Raises ModelError if something is missing, damaged or of another kind."""
    model, _ = load_as(folder, NET, lambda **shape: SmallLM(Shape(**shape)))
    return model, Vocabulary.load(folder)
