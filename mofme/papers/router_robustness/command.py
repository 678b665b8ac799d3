"""`python -m mofme route robustness`: where routers between two models go wrong, and what helps (DSC)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, measures
from mofme.measure.result import Result, Row


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
    from mofme.errors import TableError
    from mofme.language.sentence_encoder import SentenceEncoder
    from mofme.language.tables.formats import load_table
    from mofme.papers.carrot.trained_router import TrainedRouter
    from mofme.papers.router_robustness.assessment import assess
    from mofme.papers.router_robustness.experiment import as_result, as_result_of_router, remembering, study, try_rules
    from mofme.papers.router_robustness.routers import between_two, controls, recorded
    from mofme.papers.router_robustness.safety import Prompts

    prompts = Prompts.read(queries)
    if not table:
        name, trained = Path(router).name, TrainedRouter.from_pretrained(router)
        embed = remembering(trained.queries)
        asked = embed([probe.prompt for probe in prompts.probes])
        probed, strong, weak = between_two(trained.estimate, trained.models, asked)
        assessment = assess({name: [probed], **controls(1)}, prompts.probes, embed)
        return as_result_of_router(name, strong, weak, assessment, try_rules(prompts, embed)[0], command.line)
    names = [path.name.split(".")[0] for path in table]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TableError(f"two tables are called {', '.join(twice)}: rename one, or probe them one after the other")
    embed = remembering(SentenceEncoder().queries)
    rules, stopped = try_rules(prompts, embed)
    rows: list[Row] = []
    for name, path in zip(names, table, strict=True):
        loaded = load_table(path, repair=True)
        for sentence in loaded.repairs:
            command.tell(f"{path.name}: {sentence}")
        rows += study(name, recorded(loaded, embed), prompts, stopped, range(seeds), embed, command.tell)
    return as_result([*rows, *rules], prompts.probes, command.line, range(seeds))
