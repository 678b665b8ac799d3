"""`python -m mofme distil` and `evaluate distillation`: a mixture of experts teaches a smaller language model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mofme.cli.measuring import Command, measures, with_exit_codes
from mofme.measure.result import Result

if TYPE_CHECKING:
    from mofme.papers.moe_distillation.distillation import Progress


@with_exit_codes
def distil(
    command: Command,
    teacher: Annotated[str, typer.Argument(help="A converted model's folder, one of small language models, smollm2.")],
    student: Annotated[str, typer.Argument(help="The model that learns, of the same kind and with the same tokens.")],
    text: Annotated[Path, typer.Option(help="Text, of which the last tenth is measured on and the rest learned from.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the student.")],
    method: Annotated[str, typer.Option(help="kd, gkd, all, top-(n-1), ka or sar.")] = "ka",
    layers: Annotated[int | None, typer.Option(min=1, help="Keep so many of the student's layers.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches to learn from.")] = 100,
    batch: Annotated[int, typer.Option(min=1, help="Passages in a batch.")] = 16,
    passages: Annotated[int, typer.Option(min=2, help="Passages to measure on.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0, help="Learning rate at the start.")] = 3e-4,
    seed: Annotated[int, typer.Option(help="The same seed distils alike.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence of models and text, for the card.")] = "unknown",
) -> None:
    """Distil, say how near the student came, and write it."""
    import time

    from mofme.language.text import read_text
    from mofme.papers.moe_distillation import METHODS
    from mofme.papers.moe_distillation.distillation import (
        Plan,
        check_student_folder,
        non_activated_mass,
        open_lm,
        open_student,
        save_student,
    )
    from mofme.papers.moe_distillation.distillation import distil as learn
    from mofme.papers.moe_distillation.quality import passages_of

    if method not in METHODS:
        raise typer.BadParameter(f"no such method: {method}. Choose from {', '.join(METHODS)}.")
    taught_by, learner = open_lm(teacher), open_student(student, layers)
    check_student_folder(learner, out)
    prompts = passages_of(read_text(text), taught_by, held_out=passages, name=str(text))
    if method not in ("kd", "gkd"):
        shares = non_activated_mass(taught_by, prompts.held_out_PT[:4]).tolist()
        idle = ", ".join(f"{share:.0%}" for share in shares)
        command.tell(f"share of the routers' probability on idle experts, by layer: {idle}")
    began = time.monotonic()

    def tell(progress: Progress) -> None:
        pace = f"{(time.monotonic() - began) / progress.step:.1f} s a step"
        kl = "" if progress.held_out_kl is None else f", held-out KL {progress.held_out_kl:.3f}"
        command.tell(f"step {progress.step} of {progress.steps}: loss {progress.loss:.3f}{kl}; {pace}")

    plan = Plan(method, steps, seed, batch, learning_rate, samplings=1)
    quality = learn(taught_by, learner, prompts, plan, tell).quality
    found = {"held-out KL": quality.kl, "held-out cross-entropy": quality.cross_entropy, "ROUGE-L": quality.rouge_l}
    metrics = {name: round(value, 4) for name, value in found.items()}
    training = {"teacher": Path(teacher).name, "method": method, "steps": steps, "seed": seed, "text": text.name}
    save_student(learner, out, licence, training, metrics)
    command.tell(f"{out}: " + ", ".join(f"{name} {value}" for name, value in metrics.items()))


@measures("moe_distillation.json")
def distillation(
    command: Command,
    texts: Annotated[
        list[Path], typer.Argument(help="Texts to learn from, .txt or .jsonl, also .gz, or their folder.")
    ],
    arms: Annotated[Path, typer.Option(file_okay=False, help="Folder for what is finished and not done again.")],
    seeds: Annotated[int, typer.Option(min=1, help="Distil so many times by every method.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Batches to distil on.")] = 60,
    pair_steps: Annotated[int, typer.Option(min=2, help="Batches to train the teacher on, the student on half.")] = 800,
    learning_rate: Annotated[float, typer.Option(min=0, help="The student's learning rate in every method.")] = 1e-3,
    licence: Annotated[str, typer.Option(help="Licence of the texts, for the models' cards.")] = "unknown",
) -> Result:
    """Train a mixture and a smaller student on the texts, distil by every method with every seed, and compare."""
    import torch

    from mofme.language.text import read_texts
    from mofme.papers.moe_distillation.distillation import Plan
    from mofme.papers.moe_distillation.experiment import as_result, compare

    torch.set_num_threads(1)
    files = [file for path in texts for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    learned = read_texts([(file.name, file) for file in files])
    arms.mkdir(parents=True, exist_ok=True)
    plan = Plan("gkd", steps=steps, learning_rate=learning_rate)
    measured = compare(learned, range(seeds), plan, pair_steps, arms, licence, command.tell)
    return as_result(measured, range(seeds), command.line)
