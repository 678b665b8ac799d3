"""LaDiMo in two stages: a dense model, a text and a target in; a mixture that activates so much less out.

Stage 1 makes every feed-forward network a mixture, from the first layer to the last. Each is trained on its own, on the
hidden states that really reach it through those that are converted already. Stage 2 chooses a policy for each layer.
What comes of it is kept in one folder, weights, card and tokenizer, ready to be opened anywhere.

Axis names: P passages, L tokens of a passage, B passages at once, S sampled tokens, N neurons, D features.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from mofme.core.gated_experts import GatedFeedForwardExperts, swiglu
from mofme.core.weights import ModelCard, read_as, save_model
from mofme.errors import ModelError
from mofme.files import CARD_FILE, atomic_file
from mofme.language import pretrained
from mofme.language.pretrained import DecoderLayer, PretrainedLM, decoder_layers, dense_weights, open_pretrained
from mofme.measure.study import Study
from mofme.papers.ladimo import converted_layer
from mofme.papers.ladimo.converted_layer import Candidate, ConvertedLayer, Policy, Recipe, RepresentativeRouter
from mofme.papers.ladimo.layer_training import HiddenStates, LayerTraining, representatives, split_neurons

Report = Callable[[int, int], None]
NET = "dense-to-moe"
PASSAGE = 256
_SAMPLE = 2048
_HELD_BACK = 8  # passages at most, and a tenth, on which policies are tried
_STATES, _WEIGHTS, _PROFILE = "states_{:03}.npy", "layer_{:03}.safetensors", "profile_{:03}.json"


@dataclass(frozen=True)
class Conversion:
    """What was done: the recipe, the experts that may be active over all layers together, and each layer's policy.

    `profiles` holds, for every layer, the candidates that were chosen from: `choose` takes them for any other budget.
    """

    recipe: Recipe
    budget: float
    chosen: Sequence[Candidate]
    profiles: list[list[Candidate]]


def convert(
    model: PreTrainedModel,
    ids: Sequence[int],
    recipe: Recipe,
    target: float,
    work: Path,
    report: Report = lambda *_: None,
) -> Conversion:
    """Convert `model` so that of its parameters the share `target` is no longer activated, at the least loss.

    The number of experts that are active while converting follows from the target, whatever `recipe.active` says.
    Raises ModelError for a target out of reach.
    """
    layers = len(decoder_layers(model))
    recipe = replace(recipe, active=min(recipe.active, recipe.experts))
    affordable = converted_layer.budget(model, recipe, target)
    if not layers <= affordable <= layers * recipe.experts:
        raise ModelError(
            f"with {recipe.experts} experts and {recipe.shared} shared neurons {target:.0%} cannot be saved: "
            "choose another target, more experts or fewer shared neurons"
        )
    recipe = replace(recipe, active=max(1, round(affordable / layers)))
    profiles = convert_layers(model, ids, recipe, work, report)
    chosen = converted_layer.choose(profiles, affordable)
    converted_layer.set_policies(model, [candidate.policy for candidate in chosen])
    return Conversion(recipe, affordable, chosen, profiles)


def drawn_passages(ids: Sequence[int], tokens: int, seed: int) -> Tensor:
    """Passages (P, 256) of a text, drawn without replacement, that hold at most `tokens` in all. Raises ModelError if
    that leaves fewer than two."""
    count, wanted = len(ids) // PASSAGE, tokens // PASSAGE
    if min(count, wanted) < 2:
        raise ModelError(f"two passages of {PASSAGE} tokens are needed: {min(len(ids), tokens)} are too few")
    passages_PL = torch.tensor(ids[: count * PASSAGE]).view(count, PASSAGE)
    return passages_PL[torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:wanted]]


def convert_layers(
    model: PreTrainedModel, ids: Sequence[int], recipe: Recipe, work: Path, report: Report = lambda *_: None
) -> list[list[Candidate]]:
    """Replace every feed-forward network of `model` by a mixture with the policy top-`active`.

    Returns, for every layer, what each policy would cost and lose on passages held back; see `choose`. `work` keeps
    finished layers and the hidden states after them: stopped, and called again with the same recipe and text, it goes
    on after the last one. `report` is told how many layers of how many are done. Raises ModelError for a model that is
    not built like Llama, and for a recipe that does not fit it.
    """
    layers = decoder_layers(model)
    digest = sha256()
    for layer in layers:
        weights = dense_weights(layer.mlp)
        recipe.check(len(weights[0]))
        for weight in weights:
            digest.update(weight.detach().view(torch.uint8).numpy().data)
    passages_PL = drawn_passages(ids, recipe.tokens, recipe.seed)
    _check_walk(model, passages_PL[:1, :16])
    Study(work, {**asdict(recipe), "text": int(passages_PL.sum()), "model": digest.hexdigest()}, note="recipe")
    if not any(work.glob("states_*.npy")) and not (work / _PROFILE.format(len(layers) - 1)).is_file():
        shape = (*passages_PL.shape, int(model.config.hidden_size))
        blocks = (pretrained.embed(model, ids_BL) for ids_BL in passages_PL.split(4))
        HiddenStates.write(work / _STATES.format(0), shape, blocks)
    profiles = []
    for number, layer in enumerate(layers):
        report(number, len(layers))
        with quick_products():
            profiles.append(_convert_layer(model, layer, number, recipe, work))
    (work / _STATES.format(len(layers))).unlink(missing_ok=True)
    report(len(layers), len(layers))
    return profiles


@torch.no_grad()
def _check_walk(model: PreTrainedModel, ids_BL: Tensor) -> None:
    """Raises ModelError for a model whose layers have the parts of Llama's and do something else (Gemma, Granite)."""
    layer = decoder_layers(model)[0]
    gate_ND, up_ND, down_DN = dense_weights(layer.mlp)
    out: list[Tensor] = []
    handle = cast(nn.Module, layer).register_forward_hook(
        lambda _, __, y: out.append(y[0] if isinstance(y, tuple) else y)
    )
    try:
        model.model(input_ids=ids_BL, use_cache=False)
    finally:
        handle.remove()
    stream_BLD = pretrained.after_attention(model, layer, pretrained.embed(model, ids_BL))
    ours_BLD = stream_BLD + swiglu(layer.post_attention_layernorm(stream_BLD), gate_ND, up_ND) @ down_DN.T
    if not (ours_BLD - out[0]).norm() <= 1e-3 * out[0].norm():
        raise ModelError("the model's layers do not compute what Llama's do: only such models can be converted")


def quick_products() -> torch.autocast:
    """Inside, products are computed in bfloat16 if the CPU can do so itself, which takes half the time. To construct
    with, not to measure with."""
    # Without a cache of rounded weights: while training they change.
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported(), cache_enabled=False)


def _convert_layer(
    model: PreTrainedModel, layer: DecoderLayer, number: int, recipe: Recipe, work: Path
) -> list[Candidate]:
    entering, weights, profiled = (work / name.format(number) for name in (_STATES, _WEIGHTS, _PROFILE))
    dense = dense_weights(layer.mlp)
    if not entering.is_file():  # deleted when the layer was finished
        layer.mlp = ConvertedLayer.empty(dense[0].shape[1], len(dense[0]), recipe).requires_grad_(False)
        layer.mlp.load_state_dict(load_file(weights))
        rows = json.loads(profiled.read_text(encoding="utf-8"))
        return [Candidate(Policy(**row["policy"]), row["active"], row["error"]) for row in rows]
    states, norm = HiddenStates(entering), layer.post_attention_layernorm
    residual = states.through(work / "residual.npy", partial(pretrained.after_attention, model, layer))
    learned = residual.passages - min(_HELD_BACK, max(1, residual.passages // 10))
    generator = torch.Generator().manual_seed(1000 * recipe.seed + number)
    moe = _construct(dense, norm, residual, learned, recipe, generator, work)
    with torch.no_grad():
        stream_TD = residual.tokens(torch.arange(learned * residual.length, len(residual)))
        x_TD = norm(stream_TD)
        candidates = converted_layer.profile(moe, x_TD, swiglu(x_TD, *dense[:2]) @ dense[2].T, stream_TD)
    layer.mlp = moe
    with atomic_file(weights) as file:
        file.write(save(moe.state_dict()))
    with atomic_file(profiled, "w") as text:
        json.dump([asdict(candidate) for candidate in candidates], text)
    residual.through(work / _STATES.format(number + 1), partial(_after_feed_forward, layer))
    states.delete()
    residual.delete()
    return candidates


def _construct(
    dense: tuple[Tensor, Tensor, Tensor],
    norm: nn.Module,
    residual: HiddenStates,
    learned: int,
    recipe: Recipe,
    generator: torch.Generator,
    work: Path,
) -> ConvertedLayer:
    """The layer, trained on the first `learned` passages if the recipe has it so."""
    sample_S = torch.randperm(learned * residual.length, generator=generator)[:_SAMPLE].sort().values
    with torch.no_grad():
        gated_SN = swiglu(norm(residual.tokens(sample_S)), *dense[:2])
        strength_SN = (gated_SN.abs() * dense[2].norm(dim=0)).double().numpy()
    random = np.random.default_rng(generator.initial_seed())
    order_N = split_neurons(recipe.split, strength_SN, recipe.experts, recipe.shared, random)
    cut = GatedFeedForwardExperts.from_dense(*dense, torch.from_numpy(order_N), recipe.experts, recipe.shared)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())  # some routers begin at random
        moe = ConvertedLayer.of(cut, recipe).requires_grad_(False)
    if isinstance(router := moe.router.router, RepresentativeRouter):
        chosen_E = torch.from_numpy(representatives(strength_SN, order_N, recipe.experts, recipe.shared))
        router.gate_ED.copy_(dense[0][chosen_E])
        router.up_ED.copy_(dense[1][chosen_E])
    if recipe.learned:
        training = LayerTraining(moe, norm, residual, recipe)
        training.initialise(learned, work / "targets.npy")
        training.train(generator)
        training.refit(generator)
        training.outputs.delete()
    return moe


@torch.no_grad()
def _after_feed_forward(layer: DecoderLayer, residual_BLD: Tensor) -> Tensor:
    out_BLD: Tensor = residual_BLD + layer.mlp(layer.post_attention_layernorm(residual_BLD))
    return out_BLD


def save_converted(
    folder: Path,
    lm: PretrainedLM,
    recipe: Recipe,
    licence: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> ModelCard:
    """Write a converted model in half precision, with the policies its layers have, as `open_model` reads it."""
    state = lm.model.state_dict()
    if lm.model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    arguments = {
        "config": lm.model.config.to_diff_dict(),
        "recipe": asdict(recipe),
        "policies": [asdict(moe.router.policy) for moe in converted_layer.converted_layers(lm.model)],
    }
    lm.tokenizer.save_pretrained(folder)
    return save_model(folder, ModelCard(folder.name, NET, arguments, licence, training, metrics), state)


def open_model(name: str) -> PretrainedLM:
    """Open a folder that `save_converted` wrote, or else whatever `open_pretrained` opens."""
    folder = Path(name)
    if not (folder / CARD_FILE).is_file():
        return open_pretrained(name)

    def filled(card: ModelCard, state: dict[str, Tensor]) -> PretrainedLM:
        values = dict(card.arguments["config"])
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
        set_layers(model, Recipe(**card.arguments["recipe"]), card.arguments["policies"])
        model.float()
        if model.config.tie_word_embeddings:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state)
        return PretrainedLM(name, model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(folder))

    return read_as(folder, NET, filled)


def set_layers(model: PreTrainedModel, recipe: Recipe, policies: Sequence[Mapping[str, Any]]) -> None:
    """Put empty converted layers, with their policies, in the place of the dense ones."""
    for layer, policy in zip(decoder_layers(model), policies, strict=True):
        neurons, dim = dense_weights(layer.mlp)[0].shape
        moe = ConvertedLayer.empty(dim, neurons, recipe)
        moe.router.policy = Policy(**policy)
        layer.mlp = moe
