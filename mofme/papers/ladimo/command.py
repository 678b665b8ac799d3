"""`python -m mofme moefy` and `evaluate dense-to-moe`: a dense language model becomes a mixture of experts (LaDiMo)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mofme.cli.measuring import Command, measures, with_exit_codes
from mofme.measure.result import Result

Model = Annotated[str, typer.Argument(help="smollm2 (the pip package's), a folder or a hub's name.")]
Target = Annotated[
    float, typer.Option(min=0.01, max=0.9, help="Share of the parameters that a word shall no longer use.")
]
NumExperts = Annotated[int, typer.Option(min=2, help="Experts in each layer.")]
Shared = Annotated[int, typer.Option(min=0, help="Neurons of each layer that are always active.")]


@with_exit_codes
def moefy(
    command: Command,
    model: Model,
    text: Annotated[list[Path], typer.Option(help="Text to learn from, .txt or .jsonl, also .gz; may be given again.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the converted model.")],
    target: Target = 0.2,
    experts: NumExperts = 8,
    shared: Shared = 768,
    split: Annotated[
        str, typer.Option(help="activation, co-activation, or as a control random or importance.")
    ] = "co-activation",
    router: Annotated[str, typer.Option(help="linear, mlp, attention or mixture.")] = "linear",
    tokens: Annotated[int, typer.Option(min=512, help="Tokens to learn from, drawn from the text.")] = 100_000,
    seed: Annotated[int, typer.Option(help="The same seed converts alike.")] = 0,
    licence: Annotated[str, typer.Option(help="Licence of the model and the text, for the card.")] = "unknown",
) -> None:
    """Divide each feed-forward network among experts, and choose how many of them each layer needs."""
    import shutil
    from typing import get_args

    from mofme.core.moe import activated_parameters
    from mofme.core.weights import check_replaceable
    from mofme.language.pretrained import open_pretrained
    from mofme.language.text import read_text
    from mofme.papers.ladimo.conversion import NET, PASSAGE, convert, save_converted
    from mofme.papers.ladimo.converted_layer import Recipe, Split

    if split not in get_args(Split):
        raise typer.BadParameter(f"no such split: {split}. Choose from {', '.join(get_args(Split))}.")
    check_replaceable(out, NET)
    lm = open_pretrained(model)
    ids = [token for path in text for token in lm.tokens(read_text(path))]
    recipe = Recipe(experts, 1, shared, split, tokens, router, seed=seed)  # type: ignore[arg-type]
    with command.counting("layers") as show:
        conversion = convert(lm.model, ids, recipe, target, out / "unfinished", show)
    active = [candidate.active for candidate in conversion.chosen]
    read = min(tokens, len(ids)) // PASSAGE * PASSAGE  # whole passages that were there
    training = {"model": lm.name, "texts": [path.name for path in text], "tokens": read}
    metrics = {
        "activated parameters": activated_parameters(lm.model, active),
        "active experts": [round(float(mean), 3) for mean in active],
        "relative squared error": [float(f"{candidate.error:.3g}") for candidate in conversion.chosen],
    }
    card = save_converted(out, lm, conversion.recipe, licence, training, metrics)
    shutil.rmtree(out / "unfinished")
    used = f"{card.metrics['activated parameters']:,.0f} of {card.parameters:,} parameters are activated"
    command.tell(f"{out}: {used}")
    for number, candidate in enumerate(conversion.chosen):
        policy = candidate.policy
        value = f" {policy.value:g}" if policy.kind != "dense" else ""
        command.tell(f"layer {number}: {policy.kind}{value}, {candidate.active:.1f} of {experts} experts on average")


@measures("the result (.json) and its plot")
def dense_to_moe(
    command: Command,
    model: Model,
    text: Annotated[Path, typer.Option(help="Text, of which four fifths are learned from and the rest is measured.")],
    questions: Annotated[Path, typer.Option(help="Multiple-choice questions as .jsonl, also .gz.")],
    arms: Annotated[Path, typer.Option(file_okay=False, help="Folder for what is finished and not done again.")],
    task: Annotated[list[str] | None, typer.Option(help="Only questions of this task; may be given again.")] = None,
    target: Target = 0.2,
    experts: NumExperts = 8,
    shared: Shared = 768,
    tokens: Annotated[int, typer.Option(min=512, help="Tokens to learn from.")] = 100_000,
    measure: Annotated[int, typer.Option(min=2, help="Tokens to measure perplexity on.")] = 16_384,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions to answer, drawn at random.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Convert so many times.")] = 1,
) -> Result:
    """Compare ours with a uniform top-k, a random split, static pruning and CMoE's way, all at the same target."""
    import torch

    from mofme.errors import TableError
    from mofme.language.pretrained import open_pretrained
    from mofme.language.text import read_questions, read_text
    from mofme.papers.ladimo.converted_layer import Recipe
    from mofme.papers.ladimo.experiment import Setting, as_result, compare, plot_frontier

    torch.set_num_threads(1)
    ids = open_pretrained(model).tokens(read_text(text))
    begin = len(ids) * 4 // 5
    if begin < tokens:  # the result would claim them
        raise TableError(f"{text} holds {begin:,} tokens to learn from, not {tokens:,}: add text, or lower --tokens")
    setting = Setting(
        learned=ids[:begin],
        measured=ids[begin : begin + measure],
        questions=read_questions(questions, tuple(task or ()), limit),
        recipe=Recipe(experts=experts, active=1, shared=shared, split="co-activation", tokens=tokens),
        target=target,
        frontier=[share for share in (0.05, 0.1, 0.15, 0.2, 0.25) if share != target],
    )
    comparison = compare(lambda: open_pretrained(model), setting, range(seeds), arms, command.tell)
    # What the paper's own budget of tokens brings has a file of its own.
    room = "dense_to_moe" if tokens < 100_000 else "dense_to_moe_100k"
    if command.out is not None:
        plot_frontier(comparison, command.out / f"{room}-frontier.png")
    return as_result(comparison, range(seeds), command.line, room)
