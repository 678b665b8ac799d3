from pathlib import Path

import numpy as np
import pytest

from mofme.control.replay import Replay
from mofme.errors import ModelError


def filled(steps: int, capacity: int = 5) -> Replay:
    memory = Replay(capacity, observations=2, actions=1)
    for step in range(steps):
        memory.add(np.full(2, step), np.array([step / 10]), -step, np.full(2, step + 1), step % 2 == 1)
    return memory


def test_the_oldest_is_forgotten() -> None:
    memory = filled(7)
    assert len(memory) == 5
    batch = memory.sample(200, np.random.default_rng(0))
    assert set(batch.x_TD[:, 0].tolist()) == {2, 3, 4, 5, 6}


def test_what_belongs_together_stays_together() -> None:
    batch = filled(4).sample(50, np.random.default_rng(0))
    step_T = batch.x_TD[:, 0].numpy()
    np.testing.assert_allclose(batch.action_TA[:, 0], step_T / 10, rtol=1e-6)
    np.testing.assert_allclose(batch.reward_T, -step_T)
    np.testing.assert_allclose(batch.next_TD, np.repeat(step_T[:, None] + 1, 2, axis=1))
    np.testing.assert_allclose(batch.ended_T, step_T % 2)


def test_a_memory_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    memory, other = filled(7), Replay(5, 2, 1)
    memory.save(tmp_path / "memory.safetensors")
    other.load(tmp_path / "memory.safetensors")
    for one in (memory, other):
        one.add(np.full(2, 7), np.zeros(1), 0, np.full(2, 8), False)
    a, b = (one.sample(100, np.random.default_rng(0)) for one in (memory, other))
    np.testing.assert_array_equal(a.x_TD, b.x_TD)
    with pytest.raises(ModelError, match="another environment"):
        Replay(5, 3, 1).load(tmp_path / "memory.safetensors")
