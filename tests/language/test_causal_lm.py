from collections.abc import Callable

import torch

from mofme.language.pretrained import PretrainedCausalLM, PretrainedLM

IDS = torch.arange(1, 21).view(2, 10)


def test_written_with_a_cache_is_what_is_written_without(tiny_pretrained: Callable[..., PretrainedLM]) -> None:
    model = PretrainedCausalLM(tiny_pretrained())
    generator, ids_BT = torch.Generator().manual_seed(5), IDS
    for _ in range(6):
        with torch.no_grad():
            next_B1 = torch.multinomial(model.logits(ids_BT)[:, -1].softmax(-1), 1, generator=generator)
        ids_BT = torch.cat([ids_BT, next_B1], dim=1)
    assert torch.equal(model.write(IDS, 6, torch.Generator().manual_seed(5)), ids_BT[:, 10:])
