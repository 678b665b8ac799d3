"""`python -m mofme evaluate dense-to-moe`: a converted language model beside the dense one and the controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dense_to_moe(
    model: Annotated[str, typer.Argument(help="smollm2 (the pip package's), a folder or a hub's name.")],
    text: Annotated[Path, typer.Option(help="Text: its first four fifths are learned from, of the rest is measured.")],
    questions: Annotated[Path, typer.Option(help="Multiple-choice questions: .jsonl, also .gz.")],
    arms: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what is finished; what is found in it is not done again.")
    ],
    task: Annotated[list[str] | None, typer.Option(help="Only questions of this task; may be given again.")] = None,
    target: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the parameters to activate no more.")
    ] = 0.2,
    experts: Annotated[int, typer.Option(min=2, help="Experts in each layer.")] = 8,
    shared: Annotated[int, typer.Option(min=0, help="Neurons of each layer that are always active.")] = 768,
    tokens: Annotated[int, typer.Option(min=512, help="Tokens to learn from.")] = 100_000,
    measure: Annotated[int, typer.Option(min=2, help="Tokens to measure perplexity on.")] = 16_384,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions to answer, drawn at random.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Convert so many times.")] = 1,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for the result (.json) and its picture.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Compare ours with a uniform top-k, a random split, static pruning and CMoE's way, all at the same target.

    Stopped and started again with the same folders, it goes on from there. Exit code: 0 all is well, 2 nothing was
    measured.
    """
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.language.dense_to_moe.comparison import Setting, compare
    from mofme.language.dense_to_moe.comparison_result import as_result, plot_frontier
    from mofme.language.dense_to_moe.converted_layer import Recipe
    from mofme.language.host import open_host
    from mofme.language.texts import read_questions, read_text
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        host = open_host(model)
        ids = host.tokens(read_text(text))
        begin = len(ids) * 4 // 5
        setting = Setting(
            learned=ids[:begin],
            measured=ids[begin : begin + measure],
            questions=read_questions(questions, tuple(task or ()), limit),
            recipe=Recipe(experts=experts, active=1, shared=shared, split="co-activation", tokens=tokens),
            target=target,
            frontier=[share for share in (0.05, 0.1, 0.15, 0.2, 0.25) if share != target],
        )
        comparison = compare(
            lambda: open_host(model), setting, range(seeds), arms, lambda line: log.print(line, markup=False)
        )
        words = [f"python -m mofme evaluate dense-to-moe {Path(model).name} --text {text.name}"]
        words += [f"--questions {questions.name} --arms {arms.name}", *(f"--task {name}" for name in task or ())]
        words += [f"--target {target} --experts {experts} --shared {shared} --tokens {tokens} --measure {measure}"]
        words += [f"--limit {limit}"] * (limit is not None) + [f"--seeds {seeds}"]
        # What the paper's own budget of tokens brings has a file of its own.
        room = "dense_to_moe" if tokens < 100_000 else "dense_to_moe_100k"
        result = as_result(comparison, range(seeds), " ".join(words), room)
        if out is not None:
            save_result(result, out)
            plot_frontier(comparison, out / f"{room}-frontier.png")
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)
