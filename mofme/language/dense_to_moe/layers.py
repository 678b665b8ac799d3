"""The feed-forward networks of a language model: finding them, walking through them layer by layer, replacing them.

Axis names: B passages, L tokens of a passage, T tokens, D features, N neurons.
"""

from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from mofme.errors import ModelError


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


def neurons(x_TD: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What the neurons (T, N) of a dense network make of its input, before they are put together."""
    gate_ND, up_ND, _ = weights
    return F.silu(F.linear(x_TD, gate_ND)) * F.linear(x_TD, up_ND)


def quick_products() -> torch.autocast:
    """Inside, products are computed in bfloat16 if the CPU can do so itself, which takes half the time.

    To construct with, not to measure with.
    """
    # Without a cache of rounded weights: while training they change.
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported(), cache_enabled=False)


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
