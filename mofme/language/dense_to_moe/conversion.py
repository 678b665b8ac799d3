"""Both stages of LaDiMo in one: a dense model, a text and a target in; a mixture that meets the target out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel

from mofme.errors import ModelError
from mofme.language.dense_to_moe.construction import Report, convert
from mofme.language.dense_to_moe.converted_layer import Recipe, converted_layers
from mofme.language.dense_to_moe.cost import budget
from mofme.language.dense_to_moe.policy import Policy
from mofme.language.dense_to_moe.profile import Candidate, choose
from mofme.language.pretrained import decoder_layers


@dataclass(frozen=True)
class Conversion:
    """What was done: the recipe, the experts that may be active over all layers together, and each layer's policy.

    `profiles` holds, for every layer, the candidates that were chosen from: `choose` takes them for any other budget.
    """

    recipe: Recipe
    budget: float
    chosen: Sequence[Candidate]
    profiles: list[list[Candidate]]


def convert_to(
    model: PreTrainedModel,
    ids: Sequence[int],
    recipe: Recipe,
    target: float,
    work: Path,
    report: Report | None = None,
) -> Conversion:
    """Convert `model` so that of its parameters the share `target` is no longer activated, at the least loss.

    The number of experts that are active while converting follows from the target, whatever `recipe.active` says.
    Raises ModelError for a target out of reach.
    """
    layers = len(decoder_layers(model))
    recipe = replace(recipe, active=min(recipe.active, recipe.experts))
    affordable = budget(model, recipe, target)
    if not layers <= affordable <= layers * recipe.experts:
        raise ModelError(
            f"with {recipe.experts} experts and {recipe.shared} shared neurons {target:.0%} cannot be saved: "
            "choose another target, more experts or fewer shared neurons"
        )
    recipe = replace(recipe, active=max(1, round(affordable / layers)))
    profiles = convert(model, ids, recipe, work, report)
    chosen = choose(profiles, affordable)
    set_policies(model, [candidate.policy for candidate in chosen])
    return Conversion(recipe, affordable, chosen, profiles)


def set_policies(model: PreTrainedModel, policies: Sequence[Policy]) -> None:
    """One for every converted layer, in order."""
    for moe, policy in zip(converted_layers(model), policies, strict=True):
        moe.router.policy = policy


def uniform(layers: int, affordable: float) -> list[Policy]:
    """Top-k with the same k for every layer, or two neighbouring ones spread evenly where k would not be whole."""
    share = affordable / layers
    ends = [int(share * number + 1e-9) for number in range(layers + 1)]
    return [Policy("top-k", ends[number + 1] - ends[number]) for number in range(layers)]
