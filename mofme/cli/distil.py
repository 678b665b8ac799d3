"""`python -m mofme distil`: a mixture of experts teaches a smaller language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def distil(
    teacher: Annotated[str, typer.Argument(help="A converted model's folder, one of small language models, smollm2.")],
    student: Annotated[str, typer.Argument(help="The model that learns: of the same kind, with the same tokens.")],
    text: Annotated[Path, typer.Option(help="Text: its last tenth is measured on, the rest is learned from.")],
    out: Annotated[Path, typer.Option(help="Folder for the student.")],
    method: Annotated[str, typer.Option(help="kd, gkd, all, top-(n-1), ka or sar.")] = "ka",
    layers: Annotated[int | None, typer.Option(min=1, help="Keep so many of the student's layers.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches to learn from.")] = 100,
    batch: Annotated[int, typer.Option(min=1, help="Passages in a batch.")] = 16,
    passages: Annotated[int, typer.Option(min=2, help="Passages to measure on.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0, help="It falls to 0 along a line.")] = 3e-4,
    seed: Annotated[int, typer.Option(help="The same seed distils alike.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence of models and text, for the card.")] = "unknown",
) -> None:
    """Distil, say how near the student came, and write it.

    Exit code: 0 all is well, 2 nothing was written.
    """
    import time

    from rich.console import Console

    from mofme.errors import MofmeError
    from mofme.language.moe_distillation.causal_lm import open_lm
    from mofme.language.moe_distillation.distillation import Plan, Progress
    from mofme.language.moe_distillation.distillation import distil as distil_into
    from mofme.language.moe_distillation.methods import METHODS
    from mofme.language.moe_distillation.passages import passages_of
    from mofme.language.moe_distillation.students import open_student, save_student
    from mofme.language.moe_distillation.teaching import non_activated_mass
    from mofme.language.texts import read_text

    if method not in METHODS:
        raise typer.BadParameter(f"no such method: {method}. Choose from {', '.join(METHODS)}.")
    log = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()

    def tell(progress: Progress) -> None:
        pace = f"{(time.monotonic() - began) / progress.step:.1f} s a step"
        kl = "" if progress.held_out_kl is None else f", held-out KL {progress.held_out_kl:.3f}"
        log.print(f"step {progress.step} of {progress.steps}: loss {progress.loss:.3f}{kl}; {pace}", markup=False)

    try:
        taught_by, learner = open_lm(teacher), open_student(student, layers)
        prompts = passages_of(read_text(text), taught_by, held_out=passages)
        if method not in ("kd", "gkd"):
            shares = non_activated_mass(taught_by, prompts.held_out_PT[:4]).tolist()
            idle = ", ".join(f"{share:.0%}" for share in shares)
            log.print(f"share of the routers' probability on idle experts, by layer: {idle}", markup=False)
        plan = Plan(method, steps, seed, batch, learning_rate, samplings=1)
        began = time.monotonic()
        quality = distil_into(taught_by, learner, prompts, plan, tell).quality
        metrics = {
            "held-out KL": round(quality.kl, 4),
            "held-out cross-entropy": round(quality.cross_entropy, 4),
            "ROUGE-L": round(quality.rouge_l, 4),
        }
        training = {"teacher": Path(teacher).name, "method": method, "steps": steps, "seed": seed, "text": text.name}
        save_student(learner, out, licence, training, metrics)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    log.print(f"{out}: " + ", ".join(f"{name} {value}" for name, value in metrics.items()), markup=False)
