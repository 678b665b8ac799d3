"""`python -m mofme build-references` and `evaluate rerouting`: test-time re-routing (R2-T2)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, measures, with_exit_codes
from mofme.files import DEFAULT_MODEL
from mofme.measure.result import Result

Model = Annotated[str, typer.Option(help="A shipped model (see `models`), or a folder from `train`.")]
Work = Annotated[Path, typer.Option(file_okay=False, help="Folder for what is finished and not done again.")]


@with_exit_codes
def build_references(
    command: Command,
    photographs: Annotated[
        list[Path], typer.Argument(help="Folders of clean photographs, best those of training.", exists=True)
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the references.")],
    model: Model = DEFAULT_MODEL,
    limit: Annotated[int, typer.Option(min=2, help="Photographs to take at most.")] = 120,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Keep the pictures, as gradient descent needs, not to be passed on.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides crops and weather.")] = 0,
    sources: Annotated[str, typer.Option(help="The photographs and their licences, for the card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the references, for the card.")] = "",
) -> None:
    """Put weather on photographs, keep what the model solves, and choose on other photographs how to re-route."""
    from dataclasses import asdict, replace

    from mofme.core.weights import check_replaceable
    from mofme.papers.r2t2.building import build
    from mofme.papers.r2t2.references import NET
    from mofme.vision.models import load_net
    from mofme.vision.restorer import Restorer

    check_replaceable(out, NET)
    net, card = load_net(model)  # without the tone at the end: routings are judged by what they do to the net
    with command.counting("looking at photographs") as show:
        made = build(Restorer(net, card.name), photographs, limit, seed, show)
    kept = made if pairs else replace(made, weathered_NCHW=None, clean_NCHW=None)
    training = {"data": sources or ", ".join(path.resolve().name for path in photographs), "seed": seed}
    kept.save(out, licence, {**training, "photographs": limit, "pairs": len(made)})
    chosen = ", ".join(f"{name} {value}" for name, value in asdict(made.choices).items())
    command.tell(f"{len(made)} pairs that {made.model} solved are in {out}; chosen: {chosen}")


@measures("rerouting_pictures.json")
def pictures(
    command: Command,
    photographs: Annotated[list[Path], typer.Argument(help="Folders that training was given and held some back from.")],
    references: Annotated[Path, typer.Option(help="Folder from `build-references --pairs`.")],
    work: Work,
    model: Model = DEFAULT_MODEL,
    limit: Annotated[int | None, typer.Option(min=1, help="Photographs at most.")] = None,
    seed: Annotated[int, typer.Option(help="Decides the weather.")] = 0,
) -> Result:
    """Re-route held-back photographs in every weather."""
    import torch

    from mofme.papers.r2t2.picture_experiment import as_result, measure
    from mofme.papers.r2t2.references import References
    from mofme.vision.models import load_net
    from mofme.vision.restorer import Restorer

    torch.set_num_threads(1)
    net, card = load_net(model)  # without the tone at the end: what routing does to the net is measured
    restorer, loaded = Restorer(net, card.name), References.load(references)
    with command.counting("re-routing") as show:
        rows = measure(restorer, loaded, photographs, work, limit, seed, show)
    return as_result(rows, loaded, command.line, seed)


@measures("rerouting_text.json")
def text(
    command: Command,
    model: Annotated[str, typer.Argument(help="Folder of a model that `moefy` converted.")],
    pool: Annotated[Path, typer.Option(help="Questions for references and tuning as .jsonl, also .gz.")],
    test: Annotated[Path, typer.Option(help="Questions to measure.")],
    work: Work,
    task: Annotated[list[str] | None, typer.Option(help="Only questions of this task; may be given again.")] = None,
    references: Annotated[int, typer.Option(min=10, help="Questions of the pool to take.")] = 200,
    limit: Annotated[int | None, typer.Option(min=1, help="Test questions at most, drawn at random.")] = None,
    layers: Annotated[int, typer.Option(min=1, help="Last layers to re-route.")] = 4,
    seed: Annotated[int, typer.Option(help="Decides which questions are drawn.")] = 0,
) -> Result:
    """Re-route a language model on multiple-choice questions."""
    import torch

    from mofme.language.text import read_questions
    from mofme.papers.ladimo.conversion import open_model
    from mofme.papers.r2t2.text_experiment import Setting, as_result, drawn, measure

    torch.set_num_threads(1)
    tasks = tuple(task or ())
    setting = Setting(
        test=drawn(read_questions(test, tasks), seed),
        pool=read_questions(pool, tasks, references, seed),
        limit=limit,
        layers=layers,
        seed=seed,
    )
    return as_result(measure(open_model(model), setting, work, command.tell), command.line, seed)
