"""`python -m mofme route robustness`: where routers between two models go wrong, and what helps (DSC)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mofme.cli.measuring import Command, measures
from mofme.measure.result import Result

if TYPE_CHECKING:
    from mofme.papers.router_robustness.experiment import Prompts


@measures("llm_robustness.json")
def robustness(
    command: Command,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Folder of open sets of prompts (HumanEval, GSM8K, MT-bench, ...) to probe with besides our own.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            help="Table of models' recorded answers to train routers on, in place of a router; may be given again.",
            exists=True,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each router is trained, on different splits.")] = 3,
    router: Annotated[str, typer.Option(help="Router to probe without a table, a shipped one or a folder.")] = "router",
) -> Result:
    """Probe routers by category, difficulty and rewording, and with a table also by waste, backdoors and remedies."""
    from mofme.papers.router_robustness.experiment import Prompts

    prompts = Prompts.read(queries)
    return _of_tables(command, prompts, table, seeds) if table else _of_router(command, prompts, router)


def _of_tables(command: Command, prompts: Prompts, tables: list[Path], seeds: int) -> Result:
    from mofme.errors import TableError
    from mofme.language.sentence_encoder import SentenceEncoder
    from mofme.language.tables.formats import load_table
    from mofme.papers.router_robustness.experiment import as_result, remembering, study, try_rules
    from mofme.papers.router_robustness.routers import recorded

    names = [path.name.split(".")[0] for path in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"two tables are called {', '.join(twice)}: rename one, or probe them one after the other")
    embed = remembering(SentenceEncoder().queries)
    rules = try_rules(prompts, embed)
    studies = []
    for name, path in zip(names, tables, strict=True):
        loaded = load_table(path, repair=True)
        for sentence in loaded.repairs:
            command.tell(f"{path.name}: {sentence}")
        studies.append(study(name, recorded(loaded, embed), prompts, rules, range(seeds), embed, command.tell))
    return as_result(studies, rules, prompts.probes, command.line, range(seeds))


def _of_router(command: Command, prompts: Prompts, name: str) -> Result:
    from mofme.papers.carrot.trained_router import TrainedRouter
    from mofme.papers.router_robustness.assessment import assess
    from mofme.papers.router_robustness.experiment import as_result_of_router, remembering, try_rules
    from mofme.papers.router_robustness.routers import between_two, controls

    trained = TrainedRouter.from_pretrained(name)
    embed = remembering(trained.queries)
    asked = embed([probe.prompt for probe in prompts.probes])
    two = between_two(Path(name).name, trained.estimate, trained.models, asked)
    assessment = assess([two.router, *controls(1)], prompts.probes, embed)
    return as_result_of_router(assessment, two, try_rules(prompts, embed), command.line)
