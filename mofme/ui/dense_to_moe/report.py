"""What a conversion on the spot came to, as HTML and as values."""

import html
from typing import TYPE_CHECKING, Any

from mofme.measure.result import Figure
from mofme.ui.dense_to_moe.tradeoff_plot import tradeoff_plot
from mofme.ui.heat_grid import Block, heat_grid, numbered

if TYPE_CHECKING:
    from mofme.language.dense_to_moe.policy import Policy
    from mofme.ui.dense_to_moe.converting import Arm, Converted
    from mofme.ui.dense_to_moe.writing import Written


def summary_html(converted: "Converted") -> str:
    """What it costs and saves, in one sentence, and what it rests on."""
    dense, ours = converted.arms[:2]
    return (
        f"<p>Done: an average token now uses <b>{saved(converted, ours):.1f} % fewer</b> of the model's "
        f"{converted.parameters / 1e6:.1f} million parameters. Perplexity goes from <b>{dense.text.perplexity:.1f}</b> "
        f"to <b>{ours.text.perplexity:.1f}</b>.</p><p class='note'>Learned from {converted.learned:,} tokens, measured "
        f"on {converted.measured:,} others of the same text.</p>"
    )


def saved(converted: "Converted", arm: "Arm") -> float:
    """Parameters that an average token uses no more, in percent of the dense model's."""
    return 100 * (1 - arm.activated / converted.parameters)


def converted_html(converted: "Converted") -> str:
    """All models beside each other, and inside the converted one what was chosen and which experts work."""
    return (
        "<h4>Beside the dense model and controls</h4>"
        f"{_table(converted)}"
        "<p class='note' style='margin: 8px 0 16px'>Perplexity: among how many equally likely words the model "
        "hesitates, roughly, at each word of the text held back. Lower is better; in brackets the 95 % interval. "
        "“All layers alike” uses as many experts in every layer, instead of a rule for each.</p>"
        f"<div class='plots'>{_plot(converted)}</div>"
        f"<h4>Chosen for each layer</h4>{_policies(converted)}"
        "<details class='result' style='margin-top: 12px'><summary>How often each expert works, % of the tokens"
        f"</summary>{_use(converted)}</details>"
    )


def converted_values(converted: "Converted") -> dict[str, Any]:
    """The same for programs: parameters, perplexity, accuracy as shares, and each layer's policy."""

    def plain(figure: Figure) -> dict[str, float | None]:
        return {"value": figure.value, "low": figure.low, "high": figure.high}

    return {
        "parameters": converted.parameters,
        "learned_tokens": converted.learned,
        "measured_tokens": converted.measured,
        "models": {
            arm.name: {
                "activated_parameters": arm.activated,
                "perplexity": plain(arm.text.perplexity_figure()),
                **({name: plain(figure) for name, figure in arm.choice.figures().items()} if arm.choice else {}),
            }
            for arm in converted.arms
        },
        "layers": [
            {
                "policy": candidate.policy.kind,
                "value": candidate.policy.value,
                "active_experts": float(use_E.sum()),
                "relative_error": candidate.error,
            }
            for candidate, use_E in zip(converted.conversion.chosen, converted.use_LE, strict=True)
        ],
    }


def written_html(title: str, prompt: str, written: "Written | None") -> str:
    """A text as one model writes it on."""
    text, how = "", "Reading …"
    if written is not None:
        text = f"<b>{html.escape(written.text)}</b>"
        how = f"{written.speed:.1f} tokens a second, {100 * written.used:.0f} % of the parameters used"
        if not written.speed:
            how = "It takes the text to be complete, and adds nothing."
    return (
        f"<h4>{html.escape(title)}</h4><p style='white-space: pre-wrap; overflow-wrap: anywhere'>"
        f"{html.escape(prompt)}{text}</p><p class='note'>{how}</p>"
    )


def policy_words(policy: "Policy") -> str:
    """In words that fit beside a bar."""
    if policy.kind == "dense":
        return "all"
    return f"best {policy.value:.0f}" if policy.kind == "top-k" else f"≥ {100 * policy.value:.1f} %"


def _table(converted: "Converted") -> str:
    asked = any(arm.choice for arm in converted.arms)
    heads = ["", "Million parameters a token uses", "Saved, %", "Perplexity", *(["Right answers, %"] if asked else [])]
    lines = []
    for arm in converted.arms:
        figure = arm.text.perplexity_figure()
        interval = "" if figure.low is None else f" ({figure.low:.1f} to {figure.high:.1f})"
        cells = [
            arm.name,
            f"{arm.activated / 1e6:.1f}",
            f"{saved(converted, arm):.1f}",
            f"{figure.value:.1f}{interval}",
        ]
        if arm.choice:
            right = arm.choice.figures()["accuracy, normalized"]
            cells.append(f"{100 * right.value:.0f} ({100 * (right.low or 0):.0f} to {100 * (right.high or 0):.0f})")
        lines.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    head = "".join(f"<th>{heading}</th>" for heading in heads)
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='table numbers'><table><tr>{head}</tr>{rows}</table></div>"


def _plot(converted: "Converted") -> str:
    dots = {arm.name: (arm.activated / 1e6, arm.text.perplexity_figure()) for arm in converted.arms}
    return tradeoff_plot("Perplexity against parameters used", "million parameters a token uses", dots)


def _policies(converted: "Converted") -> str:
    experts = converted.conversion.recipe.experts
    rows = "".join(
        f"<div class='bar'><span>{number}: {policy_words(candidate.policy)}</span>"
        f"<i><b style='width: {100 * active / experts:.0f}%'></b></i><span>{active:.1f}</span></div>"
        for number, (candidate, active) in enumerate(
            zip(converted.conversion.chosen, converted.use_LE.sum(-1), strict=True), start=1
        )
    )
    shared = converted.conversion.recipe.shared
    always = f" {shared} neurons of each layer work always, and are not counted." if shared else ""
    return (
        f"<p class='note'>For each layer: its rule, and how many of its {experts} experts work for an average token. "
        "“best 6”: the six that its router thinks are needed most. “≥ 5 %”: all that get at least so much of the "
        f"router's weight, and the best one. “all”: the layer stays as it was.{always}</p>"
        f"<div class='bars'>{rows}</div>"
    )


def _use(converted: "Converted") -> str:
    layers, experts = converted.use_LE.shape
    rows = [f"Layer {number}" for number in range(1, layers + 1)]
    return heat_grid("", rows, [Block("Expert", numbered(experts), converted.use_LE, zeros=True)])
