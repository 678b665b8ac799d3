"""What a visitor may choose, in plain words."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofme.language.dense_to_moe.splits import Split

EXPERTS = (4, 8, 16, 32)
SHARED = {"none": 0.0, "a sixth": 1 / 6, "a third": 1 / 3, "half": 1 / 2}
"""Neurons that every token uses, as a share of a layer's neurons."""

GROUPED: dict[str, "Split"] = {
    "by which neurons fire together": "co-activation",
    "by how strongly they fire": "activation",
}
"""Ways to group the neurons into experts."""

RANDOM, PRUNED = "experts drawn by chance", "weak neurons removed for good"
CONTROLS = (RANDOM, PRUNED)
"""What else may be made of the same model with the same text and target, each for the time of another conversion."""
