from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mofme.language.llm_routing.baselines import Hull, Oracle
from mofme.language.llm_routing.routing_time import milliseconds_to_choose, milliseconds_to_embed
from mofme.language.llm_routing.table import RoutingTable
from mofme.language.sentence_encoder import Queries

PROMPTS = ("p", "q", "r")
TABLE = RoutingTable("t", PROMPTS, ("a", "b"), np.ones((3, 2)), np.ones((3, 2)), ("",) * 3)


def test_every_prompt_is_embedded_by_itself_on_one_thread() -> None:
    asked: list[Sequence[str]] = []

    def embed(prompts: Sequence[str]) -> Queries:
        assert torch.get_num_threads() == 1
        asked.append(tuple(prompts))
        return Queries(prompts, np.eye(1))

    torch.set_num_threads(2)
    try:
        milliseconds = milliseconds_to_embed(embed, PROMPTS)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert asked == [("p",), ("p",), ("q",), ("r",)]  # the first to warm up
    assert milliseconds.shape == (3,) and (milliseconds >= 0).all()


@pytest.mark.parametrize("router", [Hull(), Oracle(TABLE)])
def test_every_prompt_is_decided_by_itself(router: Hull | Oracle) -> None:
    queries = Queries(PROMPTS, np.eye(3))
    router.fit(TABLE, queries)
    milliseconds = milliseconds_to_choose(router, queries)
    assert milliseconds.shape == (3,) and (milliseconds > 0).all()
