"""What a decision costs: processor time for one prompt, with and without its embedding."""

from collections.abc import Callable, Sequence
from functools import partial
from time import thread_time

import numpy as np
import torch

from mofme.language.llm_routing.prompt_router import EstimatingRouter, PromptRouter, plug_in
from mofme.language.llm_routing.table import FloatArray
from mofme.language.sentence_encoder import Queries


def milliseconds_to_embed(embed: Callable[[Sequence[str]], Queries], prompts: Sequence[str]) -> FloatArray:
    """Processor time of this thread to embed each prompt by itself, after one for warming up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what other threads do would not be counted
    try:
        embed(prompts[:1])
        return np.array([_milliseconds(partial(embed, [prompt])) for prompt in prompts])
    finally:
        torch.set_num_threads(threads)


def milliseconds_to_choose(router: PromptRouter, queries: Queries) -> FloatArray:
    """Processor time of this thread for one decision on each embedded prompt, after one for warming up.

    A router that estimates makes one estimate and applies the plug-in rule once; another is asked for its whole dial.
    """

    def choose(query: Queries) -> None:
        if isinstance(router, EstimatingRouter):
            plug_in(router.estimate(query), 0.5).argmax(1)
        else:
            router.sweep(query)

    choose(queries.rows([0]))
    singles = [queries.rows([row]) for row in range(len(queries))]
    return np.array([_milliseconds(partial(choose, query)) for query in singles])


def _milliseconds(work: Callable[[], object]) -> float:
    start = thread_time()
    work()
    return 1000 * (thread_time() - start)
