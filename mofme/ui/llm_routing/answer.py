"""One routed prompt in words, as a table and as a plot."""

import html
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from mofme.ui.llm_routing.cost_plot import cost_plot

if TYPE_CHECKING:
    from mofme.language.llm_routing.trained_router import Routed

_FAR = 0.35  # cosine; unrelated sentences seldom come closer
_SHOWN = 200  # characters of a known prompt


def answer_html(routed: "Routed", knows: str) -> str:
    """The chosen model, what is expected of all of them, and the prompts that the router goes by.

    `knows` says what the router has learnt from.
    """
    chosen = routed.models.index(routed.model)
    quality, cost = float(routed.quality_M[chosen]), float(routed.cost_M[chosen])
    return (
        f"<p class='note'>{html.escape(knows)}</p><p class='choice'>Ask <b>{html.escape(routed.model)}</b></p>"
        f"<p>Expected quality {100 * quality:.0f} %, {dollars(cost)} per 1,000 prompts. {_beside_the_best(routed)}</p>"
        f"{_models_table(routed)}<div class='plots'>{_plot(routed)}</div>{_neighbours(routed)}"
    )


def dollars(cost: float) -> str:
    """Dollars a prompt as dollars per 1,000: they can be read."""
    return f"${1000 * cost:,.2f}" if cost >= 1e-5 else f"${1000 * cost:.1g}"


def _beside_the_best(routed: "Routed") -> str:
    chosen, best = routed.models.index(routed.model), int(routed.quality_M.argmax())
    if best == chosen:
        return "No other is expected to be better."
    points = 100 * float(routed.quality_M[best] - routed.quality_M[chosen])
    return (
        f"The best, {html.escape(routed.models[best])}, is expected to be {points:.0f} points better, for "
        f"{dollars(float(routed.cost_M[best]))}."
    )


def _models_table(routed: "Routed") -> str:
    rows = "".join(
        f"<tr{' class=chosen' if model == routed.models.index(routed.model) else ''}>"
        f"<td>{html.escape(routed.models[model])}</td>"
        f"<td><i><b style='width: {100 * routed.quality_M[model]:.0f}%'></b></i></td>"
        f"<td>{100 * routed.quality_M[model]:.0f} %</td><td>{dollars(float(routed.cost_M[model]))}</td></tr>"
        for model in (-routed.quality_M).argsort(kind="stable")
    )
    return (
        "<div class='table numbers models'><table><tr><th>Model</th><th colspan='2'>Expected quality</th>"
        f"<th>Per 1,000</th></tr>{rows}</table></div>"
    )


def _plot(routed: "Routed") -> str:
    """What the models are expected to do with this prompt, and the choices between quality and cost."""
    models = {
        name: (1000 * float(cost), float(quality))
        for name, cost, quality in zip(routed.models, routed.cost_M, routed.quality_M, strict=True)
    }
    worth = [point for point in models.values() if not any(_better(other, point) for other in models.values())]
    return cost_plot("This prompt", models, {"choices worth their price": sorted(worth)}, routed.model)


def _neighbours(routed: "Routed") -> str:
    """The nearest prompts that the router knows: their text or task, how near they are, and who solved them."""
    if not routed.neighbours:
        return ""
    far = max(near.similarity for near in routed.neighbours) < _FAR
    rows = "".join(
        f"<tr><td>{html.escape(near.task or 'unknown')}</td><td>{near.similarity:.2f}</td>"
        f"<td>{html.escape(_solved(near.solved_by, routed.models))}</td></tr>" + _known(near.prompt)
        for near in routed.neighbours
    )
    warning = "<p>Nothing it knows is like this prompt: do not trust these numbers much.</p>" if far else ""
    return (
        f"<h4>The nearest prompts it knows</h4>{warning}<div class='table neighbours'><table><tr><th>Task</th>"
        f"<th>Similarity</th><th>Solved by</th></tr>{rows}</table></div>"
    )


def _known(prompt: str) -> str:
    """A row of its own below its task's; shipped routers hold no texts."""
    words = html.escape(shorten(prompt, _SHOWN, placeholder=" …"))
    return f"<tr class='text'><td colspan='3'>{words}</td></tr>" if words else ""


def _better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Cheaper and no worse, or better and no dearer."""
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def _solved(names: Sequence[str], models: Sequence[str]) -> str:
    failed = [model for model in models if model not in names]
    if not names or not failed:
        return "all" if names else "none"
    return f"all but {', '.join(failed)}" if len(failed) < len(names) else ", ".join(names)
