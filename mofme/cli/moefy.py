"""`python -m mofme moefy`: a dense language model becomes a mixture of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def moefy(
    model: Annotated[str, typer.Argument(help="smollm2 (the pip package's), a folder or a hub's name.")],
    text: Annotated[
        list[Path], typer.Option(help="Text to learn from: .txt or .jsonl, also .gz; several may be given.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the converted model.")],
    target: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the parameters to activate no more.")
    ] = 0.2,
    experts: Annotated[int, typer.Option(min=2, help="Experts in each layer.")] = 8,
    shared: Annotated[int, typer.Option(min=0, help="Neurons of each layer that are always active.")] = 768,
    split: Annotated[
        str, typer.Option(help="activation, co-activation, or as a control: random, importance.")
    ] = "co-activation",
    router: Annotated[str, typer.Option(help="linear, mlp, attention or mixture.")] = "linear",
    tokens: Annotated[int, typer.Option(min=512, help="Tokens to learn from, drawn from the text.")] = 100_000,
    seed: Annotated[int, typer.Option(help="The same seed converts alike.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence of the model and the text, for the card.")] = "unknown",
) -> None:
    """Divide each feed-forward network among experts, and choose how many of them each layer needs.

    Stopped and started again with the same options, it goes on after the last layer that was finished. Exit code: 0 all
    is well, 2 nothing was written.
    """
    import shutil
    from typing import get_args

    from rich.console import Console
    from rich.progress import Progress

    from mofme.errors import MofmeError
    from mofme.language.dense_to_moe.conversion import convert_to
    from mofme.language.dense_to_moe.converted_layer import Recipe
    from mofme.language.dense_to_moe.splits import Split
    from mofme.language.dense_to_moe.storage import describe, save_converted
    from mofme.language.host import open_host
    from mofme.language.texts import read_text

    if split not in get_args(Split):
        raise typer.BadParameter(f"no such split: {split}. Choose from {', '.join(get_args(Split))}.")
    log = Console(stderr=True, highlight=False, soft_wrap=True)
    work = out / "unfinished"
    try:
        host = open_host(model)
        ids = [token for path in text for token in host.tokens(read_text(path))]
        recipe = Recipe(experts, 1, shared, split, tokens, router, seed=seed)  # type: ignore[arg-type]
        with Progress(console=log, transient=True) as progress:
            task = progress.add_task("layers")
            conversion = convert_to(
                host.model,
                ids,
                recipe,
                target,
                work,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        training, metrics = describe(host, conversion, [path.name for path in text])
        card = save_converted(out, host, conversion.recipe, licence, training, metrics)
    except (MofmeError, OSError) as error:
        log.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2) from None
    shutil.rmtree(work)
    used = f"{card.metrics['activated parameters']:,.0f} of {card.parameters:,} parameters are activated"
    log.print(f"{out}: {used}", markup=False)
    for number, candidate in enumerate(conversion.chosen):
        policy = candidate.policy
        value = f" {policy.value:g}" if policy.kind != "dense" else ""
        log.print(f"layer {number}: {policy.kind}{value}, {candidate.active:.1f} of {experts} experts on average")
