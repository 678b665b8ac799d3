"""`python -m mofme route robustness`: where routers between two models go wrong, and what helps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mofme.cli.results import show_result

if TYPE_CHECKING:
    from mofme.language.llm_routing.robustness.study import Prompts
    from mofme.measure.result import Result


def robustness(
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
            help="Table of models' recorded answers to train routers on; give it again for more. "
            "Without, the shipped router is probed.",
            exists=True,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each router is trained, on different splits.")] = 3,
    router: Annotated[str, typer.Option(help="Router to probe without a table: a shipped one or a folder.")] = "router",
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for llm_robustness.json.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON only.")] = False,
) -> None:
    """Probe routers by category, difficulty and rewording; with a table, also waste, backdoors and remedies.

    Works without any data. Exit code: 0 all is well, 2 nothing was measured.
    """
    from mofme.errors import MofmeError
    from mofme.language.llm_routing.robustness.study import Prompts
    from mofme.measure.result import save_result

    log = Console(stderr=True, highlight=False, soft_wrap=True)
    command = _command(queries, table or [], seeds, router)
    try:
        prompts = Prompts.read(queries)
        result = _of_tables(prompts, table, seeds, command, log) if table else _of_router(prompts, router, command)
        if out is not None:
            save_result(result, out)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    show_result(result, as_json)


def _of_tables(prompts: Prompts, tables: list[Path], seeds: int, command: str, log: Console) -> Result:
    from mofme.language.llm_routing.loaders import load_table
    from mofme.language.llm_routing.robustness.result import as_result
    from mofme.language.llm_routing.robustness.study import remembering, study, try_rules
    from mofme.language.llm_routing.robustness.training import recorded
    from mofme.language.llm_routing.sentence_encoder import SentenceEncoder

    embed = remembering(SentenceEncoder().queries)
    rules = try_rules(prompts, embed)
    studies = []
    for path in tables:
        loaded = load_table(path, repair=True)
        for sentence in loaded.repairs:
            log.print(f"{path.name}: {sentence}", markup=False)
        name = path.name.split(".")[0]
        data = recorded(loaded, embed)
        studies.append(
            study(name, data, prompts, rules, range(seeds), embed, lambda line: log.print(line, markup=False))
        )
    return as_result(studies, rules, prompts.probes, command, range(seeds))


def _of_router(prompts: Prompts, name: str, command: str) -> Result:
    from mofme.language.llm_routing.robustness.between_two import between_two
    from mofme.language.llm_routing.robustness.report import assess
    from mofme.language.llm_routing.robustness.result import as_result_of_router
    from mofme.language.llm_routing.robustness.study import remembering, try_rules
    from mofme.language.llm_routing.robustness.subjects import controls
    from mofme.language.llm_routing.trained_router import TrainedRouter

    trained = TrainedRouter.from_pretrained(name)
    embed = remembering(trained.queries)
    asked = embed([probe.prompt for probe in prompts.probes])
    two = between_two(Path(name).name, trained.estimate, trained.models, asked)
    assessment = assess([two.subject, *controls(1)], prompts.probes, embed)
    return as_result_of_router(assessment, two, try_rules(prompts, embed), command)


def _command(queries: Path | None, tables: list[Path], seeds: int, router: str) -> str:
    """What was typed, with the names of files and folders only: where they lie differs from machine to machine."""
    words = ["python -m mofme route robustness"] + ([f"--queries {queries.resolve().name}"] if queries else [])
    words += [f"--table {path.name}" for path in tables]
    words += [f"--seeds {seeds}"] if tables else [f"--router {Path(router).name}"]
    return " ".join(words)
