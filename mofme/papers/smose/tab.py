"""Tab Interpretable control: a robot drives, and everything that drives it can be read."""

import html
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.errors import ModelError
from mofme.papers.smose.environments import COLOURS
from mofme.papers.smose.policy import SHIPPED, shipped_policies
from mofme.ui.chart import WIDTH, drawing, legend, legend_height, text
from mofme.ui.html import Cell, Html, heat_cell, heat_rows, measured_box
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.uploads import new_folder
from mofme.ui.work import AT_ONCE, Endpoint, start_and_cancel, status_box, work

if TYPE_CHECKING:
    from mofme.papers.smose.environments import Spaces, Visited
    from mofme.papers.smose.trees import ExpertTable

MEASURED = ("control",)
ROUTER, TREE = CHOOSERS = ("The router", "A decision tree")
_BAND = 26


@dataclass(frozen=True)
class Driven:
    """What is shown: the film, who drove at which step, each expert's table; the tree (words, SVG) where one drove."""

    environment: str
    path: Path
    episode: "Visited"
    names: "Spaces"
    tables: "tuple[ExpertTable | None, ...]"
    tree: str = ""
    tree_svg: str = ""
    fidelity: float = 1.0


def build(services: Services, policies: Path = SHIPPED) -> None:
    """Draw the tab and connect it."""
    shipped = shipped_policies(policies)
    gr.Markdown(
        "The robot is driven by a handful of **linear experts**, one at a time: each is a small table of numbers that "
        "says how much of what it sees goes to which joint. A linear router, or a decision tree in its place, chooses "
        "the expert. The robot has the colour of the expert that drives."
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            robot = gr.Radio(
                list(shipped), value=next(iter(shipped), None), label="Robot and its policy", elem_id="robot"
            )
            chooser = gr.Radio(list(CHOOSERS), value=ROUTER, label="Who chooses the expert")
            info = "The tree is grown anew each time, which takes some ten seconds."
            depth = gr.Slider(1, 8, value=4, step=1, label="Depth of the tree", info=info, visible=False)
            with gr.Accordion("Advanced", open=False):
                seed = gr.Slider(0, 1000, value=0, step=1, label="Where the episode begins (seed)")
            buttons = start_and_cancel("Drive", "drive")
            if not shipped:
                gr.Markdown("No policy is installed: train one with `python -m mofme control train`.")
        with gr.Column(scale=6, min_width=320):
            video = gr.Video(label="Episode", autoplay=True, loop=True, height=320, elem_id="episode")
            status = status_box("Here you will see the robot, and below it which expert drove when.", min_height=24)
            timeline = gr.HTML(padding=False, elem_id="timeline")
    experts = gr.HTML(padding=False, elem_id="control-experts")
    tree = gr.HTML(padding=False, elem_id="tree")
    measured_box(*MEASURED)

    def run(job: Job, robot: str, chooser: str, depth: float, seed: float) -> Driven:
        if robot not in shipped:
            raise ModelError("Choose a robot; if there is none, train a policy with `python -m mofme control train`.")
        return drive(shipped[robot], chooser, int(depth), int(seed), new_folder() / f"{robot}.webm", job)

    chooser.change(lambda chosen: gr.Slider(visible=chosen == TREE), chooser, depth, **AT_ONCE)
    work(
        run,
        [robot, chooser, depth, seed],
        {
            video: lambda driven: str(driven.path),
            status: summary_html,
            timeline: lambda driven: f"<div class='plots'>{timeline_svg(driven)}</div>",
            experts: lambda driven: f"<h2>The experts</h2>{experts_html(driven)}",
            tree: tree_html,
        },
        buttons,
        status,
        services.limits.picture_seconds,
        Endpoint(
            "drive",
            "Let a shipped policy, or a tree in its router's place, drive a robot. Returns a film.",
            {"film": gr.File, "result": gr.JSON},
            lambda driven: (str(driven.path), _for_programs(driven)),
        ),
    )


def drive(folder: Path, chooser: str, depth: int, seed: int, path: Path, job: Job) -> Driven:
    """Let a policy drive for an episode. Raises Cancelled, or MofmeError once the job's time is up."""
    from mofme.papers.smose.environments import film, spaces
    from mofme.papers.smose.policy import acting, load_policy
    from mofme.papers.smose.trees import distil, expert_tables, tree_acting

    job.report(0, "Reading the policy")
    policy, environment = load_policy(folder)
    act, words, picture, fidelity = acting(policy), "", "", 1.0
    if chooser == TREE:

        def grown(number: int, rounds: int) -> None:
            words = f"Growing a tree from what the router chooses: {number} of {rounds}"
            job.report(0.5 * number / (rounds + 1), words)

        tree = distil(policy, environment, depth, seed=1, episodes=1, report=grown)
        act, fidelity = tree_acting(tree.tree, tree.weight_E, policy), tree.fidelity
        words, picture = tree.text(environment), tree.picture(environment)

    def told(step: int, steps: int) -> None:
        job.report(0.5 + 0.4 * step / steps, "Driving")

    episode = film(act, environment, path, seed, report=told)
    job.report(0.9, "Reading the experts")
    tables = tuple(expert_tables(policy, episode))
    return Driven(environment, path, episode, spaces(environment), tables, words, picture, fidelity)


def summary_html(driven: Driven) -> str:
    """What the episode earned, and how many experts it took."""
    episode, used = driven.episode, sum(table is not None for table in driven.tables)
    words = (
        f"{episode.lengths[0]} steps, {episode.lengths[0] * episode.seconds_a_step:.1f} s of the robot's time: "
        f"earned {episode.returns[0]:,.1f}; {used} of {len(driven.tables)} experts drove."
    )
    if driven.tree:
        words += f" In the states it reached, the tree chose as the router in {driven.fidelity:.0%}."
    return f"<p>{html.escape(words)}</p>"


def timeline_svg(driven: Driven) -> str:
    """A band over the episode's time, in the colour of the expert that drove."""
    experts, seconds = driven.episode.expert_T.tolist(), driven.episode.seconds_a_step
    width = WIDTH / len(experts)
    changes = [0, *(step for step in range(1, len(experts)) if experts[step] != experts[step - 1]), len(experts)]
    parts = [
        f"<rect x='{width * begin:.2f}' y='4' width='{width * (end - begin):.2f}' height='{_BAND}' "
        f"fill='{COLOURS[experts[begin] % len(COLOURS)]}'/>"
        for begin, end in pairwise(changes)
    ]
    end = text(WIDTH, _BAND + 18, f"{len(experts) * seconds:.1f} s", "text-anchor='end'")
    parts += [text(0, _BAND + 18, "0 s"), end]
    colours = {f"Expert {expert}": COLOURS[expert % len(COLOURS)] for expert in sorted(set(experts))}
    parts.append(legend(_BAND + 40, colours))
    return drawing("Which expert drove when", parts, _BAND + 32 + legend_height(colours))


def tree_html(driven: Driven) -> str:
    """The tree that drove, as a picture and in words; nothing where the router drove."""
    if not driven.tree:
        return ""
    return (
        "<h2>The tree</h2><p class='note'>Read from the top: to the left where a comparison is true, to the right "
        "where it is not. A share is of the states that the tree was made from.</p>"
        f"<div class='tree'>{driven.tree_svg}</div>"
        f"<details class='result'><summary>In words</summary><pre>{html.escape(driven.tree)}</pre></details>"
    )


def experts_html(driven: Driven) -> str:
    """A fold-out for every expert that drove, the busiest first: where it is called, and all of its weights."""
    used = [(number, table) for number, table in enumerate(driven.tables) if table is not None]
    return "".join(_expert(driven, number, table) for number, table in sorted(used, key=lambda one: -one[1].share))


def _for_programs(driven: Driven) -> dict[str, Any]:
    episode = driven.episode
    return {"return": episode.returns[0], "experts": episode.expert_T.tolist(), "tree": driven.tree}


def _expert(driven: Driven, number: int, table: "ExpertTable") -> str:
    names = driven.names
    where = ", ".join(f"{seen} {_height(deviations)}" for seen, deviations in table.farthest(names))
    what = "; ".join(
        f"more {seen} {'raises' if effect > 0 else 'lowers'} {moved} ({effect:+.2f})"
        for seen, moved, effect in table.strongest(names, most=3)
    )
    largest = max(float(abs(table.effect_AD).max()), 1e-9)
    rows = [
        (name, _cells(effect_A, largest)) for name, effect_A in zip(names.observations, table.effect_AD.T, strict=True)
    ]
    rows.append((Html("<b>in the middle</b>"), _cells(table.rest_A, 1.0)))
    colour = COLOURS[number % len(COLOURS)]
    return (
        f"<details class='result'><summary><b style='color: {colour}'>&#9632;</b> <b>Expert {number}</b> "
        f"<span>drove {table.share:.0%} of the steps. Called where {html.escape(where)}. It says: {html.escape(what)}."
        f"</span></summary><p class='note'>What one standard deviation more of an observation (line) changes at an "
        f"action (column), before actions are limited; last, what it does in the middle of its region.</p>"
        f"{heat_rows('', [(action, ['']) for action in names.actions], rows)}</details>"
    )


def _height(deviations: float) -> str:
    much = "much " if abs(deviations) > 1 else ""
    return f"is {much}{'above' if deviations > 0 else 'below'} its mean"


def _cells(values: Iterable[float], largest: float) -> list[Cell]:
    written = [f"{value:+.2f}" for value in values]
    return [heat_cell(float(words) / largest, words if float(words) else "0") for words in written]
