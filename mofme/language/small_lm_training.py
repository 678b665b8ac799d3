"""Training a small language model, and what it makes of text it never saw: the end of each text is held back.

Axis names: P passages, T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mofme.core.losses import switch_loss
from mofme.core.moe import observe_routing
from mofme.core.training import Run, cosine
from mofme.errors import TableError
from mofme.language.scoring import TextScore
from mofme.language.small_lm import SmallLM, Vocabulary

Report = Callable[[int, int, float], None]
Stopped = Callable[[], bool]
_REPORT_EVERY = 50


@dataclass(frozen=True)
class Corpus:
    """`learned_N`: tokens to learn from, text after text. `held_back`: for each text, passages (P, T + 1) of its end.

    A passage holds T tokens to read, each with the one after it.
    """

    learned_N: Tensor
    held_back: Mapping[str, Tensor]


def make_corpus(texts: Mapping[str, str], vocabulary: Vocabulary, context: int, passages: int) -> Corpus:
    """Hold back the last tenth of every text, of which `passages` passages of `context` tokens, evenly spread, stay.

    Raises TableError naming a text that is too short for it.
    """
    learned, held_back = [], {}
    for name, text in texts.items():
        ids = torch.tensor(vocabulary.encode(text))
        begin = len(ids) * 9 // 10
        found_PT = ids[begin:].unfold(0, context + 1, context) if len(ids) - begin > context else ids[:0, None]
        if len(found_PT) < passages:
            raise TableError(
                f"{name} is too short: its last tenth holds {len(found_PT)} of {passages} passages of {context} tokens"
            )
        chosen = torch.arange(passages) * len(found_PT) // passages
        learned.append(ids[:begin])
        held_back[name] = found_PT[chosen].clone()
    return Corpus(torch.cat(learned), held_back)


def learned_parts(texts: Sequence[str]) -> list[str]:
    """The part of each text that a vocabulary may be learned from: none of what `make_corpus` holds back."""
    return [text[: len(text) * 85 // 100] for text in texts]


@dataclass(frozen=True)
class Plan:
    """How to train: `steps` batches of `batch` windows of `context` tokens, drawn by `seed`.

    The learning rate rises over `warm_up` steps and falls along a cosine to a tenth. `balance` weighs Switch's loss.
    """

    steps: int = 1000
    batch: int = 16
    context: int = 128
    learning_rate: float = 3e-3
    warm_up: int = 50
    weight_decay: float = 0.1
    balance: float = 0.0
    seed: int = 0


def train(
    model: SmallLM, learned_N: Tensor, plan: Plan, report: Report | None = None, stopped: Stopped | None = None
) -> list[float]:
    """Train in place; returns the loss of every step, in nats per token. `report` gets step, steps and their mean.

    AdamW with clipped gradients. Raises Cancelled as soon as `stopped` says so.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": plan.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, plan.learning_rate, betas=(0.9, 0.95), fused=True)
    run = Run(
        model, optimizer, steps=plan.steps, schedule=cosine(floor=0.1), warm_up=plan.warm_up, clip=1.0, stopped=stopped
    )
    generator = torch.Generator().manual_seed(plan.seed)
    losses: list[float] = []
    model.train()
    for _ in run:
        loss, nats = _loss(model, draw_windows(learned_N, plan, generator), plan.balance)
        run.learn(loss)
        losses.append(nats)
        if report is not None and run.due(_REPORT_EVERY):
            report(run.steps, plan.steps, float(np.mean(losses[-_REPORT_EVERY:])))
    model.eval()
    return losses


def draw_windows(learned_N: Tensor, plan: Plan, generator: torch.Generator) -> Tensor:
    """A batch of windows (batch, context + 1), anywhere in the tokens."""
    start_B1 = torch.randint(len(learned_N) - plan.context, (plan.batch, 1), generator=generator)
    return learned_N[start_B1 + torch.arange(plan.context + 1)]


def _loss(model: SmallLM, windows_BT: Tensor, balance: float) -> tuple[Tensor, float]:
    if not balance:
        nats = next_token_loss(model, windows_BT).mean()
        return nats, nats.item()
    with observe_routing(model) as observed:
        nats = next_token_loss(model, windows_BT).mean()
    return nats + balance * torch.stack([switch_loss(one.decision) for one in observed]).mean(), nats.item()


def next_token_loss(model: SmallLM, windows_BT: Tensor) -> Tensor:
    """Of every token but the first, given those before it: (B, T - 1), in nats."""
    logits_BTV = model(windows_BT[:, :-1])
    return F.cross_entropy(logits_BTV.transpose(1, 2), windows_BT[:, 1:], reduction="none")


@torch.inference_mode()
def score_passages(model: SmallLM, passages_PT: Tensor, batch: int = 32) -> TextScore:
    """What each passage costs; every token but a passage's first is scored, and sees its own passage only."""
    nats = [next_token_loss(model, part_BT).double().sum(1) for part_BT in passages_PT.split(batch)]
    nats_P = torch.cat(nats).numpy()
    return TextScore(nats_P, np.full(len(nats_P), float(passages_PT.shape[1] - 1)))
