import pytest
import torch

from mofme.papers.smose import experiment, trees
from mofme.papers.smose.environments import spaces
from mofme.papers.smose.policy import SparseLinearPolicy


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning begins after a few steps, and trees are fitted on few."""
    monkeypatch.setattr(trees, "_STEPS", 250)
    monkeypatch.setattr(experiment, "_RANDOM_STEPS", 40)


@pytest.fixture
def policy() -> SparseLinearPolicy:
    torch.manual_seed(0)
    names = spaces("Reacher")
    made = SparseLinearPolicy(
        len(names.observations), torch.tensor(names.low_A), torch.tensor(names.high_A), num_experts=4
    )
    return made
