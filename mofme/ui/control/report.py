"""What is shown of an episode: who drove when, and what each expert does."""

import html
from collections.abc import Sequence
from itertools import pairwise

from mofme.control.drawing import COLOURS
from mofme.control.explanation import ExpertTable
from mofme.ui.control.driving import Driven
from mofme.ui.svg import WIDTH, drawing, legend, legend_height, text

_BAND = 26


def summary_html(driven: Driven) -> str:
    """What the episode earned, and how many experts it took."""
    episode = driven.episode
    used = len(set(episode.experts))
    words = (
        f"{len(episode.experts)} steps, {len(episode.experts) * episode.seconds_a_step:.1f} s of the robot's time: "
        f"earned {sum(episode.rewards):,.1f}; {used} of {len(driven.tables)} experts drove."
    )
    if driven.tree:
        words += f" In the states it reached, the tree chose as the router in {driven.fidelity:.0%}."
    return f"<p>{html.escape(words)}</p>"


def timeline_svg(driven: Driven) -> str:
    """A band over the episode's time, in the colour of the expert that drove."""
    experts, seconds = driven.episode.experts, driven.episode.seconds_a_step
    width = WIDTH / len(experts)
    parts = [
        f"<rect x='{width * begin:.2f}' y='4' width='{width * (end - begin):.2f}' height='{_BAND}' "
        f"fill='{COLOURS[expert % len(COLOURS)]}'/>"
        for begin, end, expert in _stretches(experts)
    ]
    parts += [
        text(0, _BAND + 18, "0 s"),
        text(WIDTH, _BAND + 18, f"{len(experts) * seconds:.1f} s", "text-anchor='end'"),
    ]
    colours = {f"Expert {expert}": COLOURS[expert % len(COLOURS)] for expert in sorted(set(experts))}
    parts.append(legend(_BAND + 40, colours))
    return drawing("Which expert drove when", parts, _BAND + 32 + legend_height(colours))


def tree_html(driven: Driven) -> str:
    """The tree that drove, as a picture and in words; nothing where the router drove."""
    if not driven.tree:
        return ""
    return (
        "<h3>The tree</h3><p class='note'>Read from the left: along the solid line where a comparison is true, along "
        "the dashed one where it is not. A share is of the states that the tree was made from.</p>"
        f"<div class='tree'>{driven.tree_svg}</div>"
        f"<details class='result'><summary>In words</summary><pre>{html.escape(driven.tree)}</pre></details>"
    )


def _stretches(experts: Sequence[int]) -> list[tuple[int, int, int]]:
    """First step, step after the last, and expert of every stretch under one expert."""
    changes = [0, *(step for step in range(1, len(experts)) if experts[step] != experts[step - 1]), len(experts)]
    return [(begin, end, experts[begin]) for begin, end in pairwise(changes)]


def experts_html(driven: Driven) -> str:
    """A fold-out for every expert that drove, the busiest first: where it is called, and all of its weights."""
    used = [(number, table) for number, table in enumerate(driven.tables) if table is not None]
    return "".join(_expert(driven, number, table) for number, table in sorted(used, key=lambda one: -one[1].share))


def _expert(driven: Driven, number: int, table: ExpertTable) -> str:
    names = driven.names
    away = sorted(range(len(names.observations)), key=lambda d: -abs(table.typical_D[d]))[:3]
    where = ", ".join(f"{names.observations[d]} {_height(float(table.typical_D[d]))}" for d in away)
    what = "; ".join(
        f"more {seen} {'raises' if effect > 0 else 'lowers'} {moved} ({effect:+.2f})"
        for seen, moved, effect in table.strongest(names, most=3)
    )
    head = "".join(f"<th>{html.escape(action)}</th>" for action in names.actions)
    largest = max(float(abs(table.effect_AD).max()), 1e-9)
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(_cell(float(effect), largest) for effect in effect_A)}</tr>"
        for name, effect_A in zip(names.observations, table.effect_AD.T, strict=True)
    )
    rest = "".join(_cell(float(value), 1.0) for value in table.rest_A)
    colour = COLOURS[number % len(COLOURS)]
    return (
        f"<details class='result'><summary><b style='color: {colour}'>&#9632;</b> <b>Expert {number}</b> "
        f"<span>drove {table.share:.0%} of the steps. Called where {html.escape(where)}. It says: {html.escape(what)}."
        f"</span></summary><p class='note'>What one standard deviation more of an observation (line) changes at an "
        f"action (column), before actions are limited; last, what it does in the middle of its region.</p>"
        f"<div class='table numbers heat'><table><tr><th></th>{head}</tr>{rows}"
        f"<tr><td><b>in the middle</b></td>{rest}</tr></table></div></details>"
    )


def _height(deviations: float) -> str:
    much = "much " if abs(deviations) > 1 else ""
    return f"is {much}{'above' if deviations > 0 else 'below'} its mean"


def _cell(value: float, largest: float) -> str:
    # Half of the colour at most, so that the number stays readable in light and in dark.
    written = f"{value:+.2f}"
    return f"<td style='--heat: {50 * abs(value) / largest:.0f}%'>{written if float(written) else '0'}</td>"
