"""`python -m mofme evaluate rerouting`: what test-time re-routing (R2-T2) gains, on pictures and on questions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="What test-time re-routing gains, beside its oracle and its controls.")


@app.command()
def pictures(
    photographs: Annotated[list[Path], typer.Argument(help="Folders that training was given: the held-back part.")],
    references: Annotated[Path, typer.Option(help="Folder from `build-references --pairs`.")],
    work: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what is finished; what is found in it is not done again.")
    ],
    model: Annotated[str, typer.Option(help="A shipped model (see `models`), or a folder from `train`.")] = "small",
    limit: Annotated[int | None, typer.Option(min=1, help="Photographs at most.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the weather.")] = 0,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for rerouting_pictures.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Re-route held-back photographs in every weather. Exit code: 0 all is well, 2 nothing was measured."""
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.measure.result import save_result
    from mofme.vision.models import load_net
    from mofme.vision.rerouting import References
    from mofme.vision.rerouting.measurement import measure
    from mofme.vision.rerouting.picture_result import as_result
    from mofme.vision.restorer import Restorer

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    torch.set_num_threads(1)
    try:
        # Without the tone at the end: what routing does to the net is measured.
        net, card = load_net(model)
        restorer, loaded = Restorer(net, card.name), References.load(references)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("re-routing", total=None)
            rows = measure(
                restorer,
                loaded,
                photographs,
                work,
                limit,
                seed,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        words = ["python -m mofme evaluate rerouting pictures", *(path.resolve().name for path in photographs)]
        words += [f"--references {references.name} --work {work.name} --model {Path(model).name}"]
        words += [f"--limit {limit}"] * (limit is not None) + [f"--seed {seed}"]
        result = as_result(rows, loaded, " ".join(words), seed)
        if out is not None:
            save_result(result, out)
    except (MofmeError, OSError) as error:
        console.print(f"error: {error}", style="red")
        raise typer.Exit(2) from None
    show_result(result, as_json)


@app.command()
def text(
    model: Annotated[str, typer.Argument(help="Folder of a model that `moefy` converted.")],
    pool: Annotated[Path, typer.Option(help="Questions for references and tuning: .jsonl, also .gz.")],
    test: Annotated[Path, typer.Option(help="Questions to measure.")],
    work: Annotated[
        Path, typer.Option(file_okay=False, help="Folder for what is finished; what is found in it is not done again.")
    ],
    task: Annotated[list[str] | None, typer.Option(help="Only questions of this task; may be given again.")] = None,
    references: Annotated[int, typer.Option(min=10, help="Questions of the pool to take.")] = 200,
    limit: Annotated[int | None, typer.Option(min=1, help="Test questions at most, drawn at random.")] = None,
    layers: Annotated[int, typer.Option(min=1, help="Last layers to re-route.")] = 4,
    seed: Annotated[int, typer.Option(help="Decides which questions are drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for rerouting_text.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Re-route a language model on multiple choice. Exit code: 0 all is well, 2 nothing was measured."""
    import torch
    from rich.console import Console

    from mofme.cli.results import show_result
    from mofme.errors import MofmeError
    from mofme.language.dense_to_moe.storage import open_model
    from mofme.language.rerouting.measurement import Setting, drawn, measure
    from mofme.language.rerouting.text_result import as_result
    from mofme.language.texts import read_questions
    from mofme.measure.result import save_result

    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    torch.set_num_threads(1)
    tasks = tuple(task or ())
    try:
        setting = Setting(
            test=drawn(read_questions(test, tasks), limit, seed),
            pool=read_questions(pool, tasks, references, seed),
            layers=layers,
            seed=seed,
        )
        rows = measure(open_model(model), setting, work, lambda line: console.print(line))
        words = [f"python -m mofme evaluate rerouting text {Path(model).name} --pool {pool.name} --test {test.name}"]
        words += [f"--work {work.name}", *(f"--task {name}" for name in tasks), f"--references {references}"]
        words += [f"--limit {limit}"] * (limit is not None) + [f"--layers {layers} --seed {seed}"]
        result = as_result(rows, " ".join(words), seed)
        if out is not None:
            save_result(result, out)
    except (MofmeError, OSError) as error:
        console.print(f"error: {error}", style="red")
        raise typer.Exit(2) from None
    show_result(result, as_json)
