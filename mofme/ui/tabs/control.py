"""Tab Interpretable control: a robot drives, and everything that drives it can be read."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.control.storage import SHIPPED, shipped_policies
from mofme.errors import ModelError
from mofme.ui.buttons import run_and_cancel
from mofme.ui.control.choices import CHOOSERS, ROUTER, TREE
from mofme.ui.jobs import new_folder, plain_errors
from mofme.ui.measured import measured_by_us
from mofme.ui.services import Services

if TYPE_CHECKING:
    from mofme.ui.control.driving import Driven

MEASURED = ("control",)


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
            depth = gr.Slider(
                1,
                8,
                value=4,
                step=1,
                label="Depth of the tree",
                info="The tree is grown anew each time, which takes some ten seconds.",
                visible=False,
            )
            with gr.Accordion("Advanced", open=False):
                seed = gr.Slider(0, 1000, value=0, step=1, label="Where the episode begins (seed)")
            with gr.Row():
                start = gr.Button("Drive", variant="primary", scale=3, min_width=160, elem_id="drive")
                cancel = gr.Button("Cancel", interactive=False, scale=1, min_width=90)
            if not shipped:
                gr.Markdown("No policy is installed: train one with `python -m mofme control train`.")
        with gr.Column(scale=6, min_width=320):
            video = gr.Video(label="Episode", autoplay=True, loop=True, height=320, elem_id="episode")
            status = gr.HTML(
                "<p class='note'>Here you will see the robot, and below it which expert drove when.</p>",
                padding=False,
                elem_classes="status",
                min_height=40,
            )
            timeline = gr.HTML(padding=False, elem_id="timeline")
    experts = gr.HTML(padding=False, elem_id="control-experts")
    tree = gr.HTML(padding=False, elem_id="tree")
    gr.HTML(f"<h3>Measured by us</h3>{measured_by_us(*MEASURED)}", padding=False)

    inputs = [robot, chooser, depth, seed]

    def run(
        robot: str, chooser: str, depth: float, seed: float, request: gr.Request, progress: gr.Progress
    ) -> "Driven":
        from mofme.ui.control.driving import drive

        if robot not in shipped:
            raise ModelError("Choose a robot; if there is none, train a policy with `python -m mofme control train`.")
        with services.driving.running(request, services.limits.picture_seconds) as job:
            path = new_folder() / f"{robot}.webm"
            return drive(
                shipped[robot],
                chooser,
                int(depth),
                int(seed),
                path,
                job,
                lambda share, words: progress(share, desc=words),
            )

    def drive_and_show(
        robot: str,
        chooser: str,
        depth: float,
        seed: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands progress to a function
    ) -> list[Any]:
        from mofme.ui.control.report import experts_html, summary_html, timeline_svg, tree_html

        with plain_errors():
            driven = run(robot, chooser, depth, seed, request, progress)
            plots = f"<div class='plots'>{timeline_svg(driven)}</div>"
            return [
                str(driven.path),
                summary_html(driven),
                plots,
                f"<h3>The experts</h3>{experts_html(driven)}",
                tree_html(driven),
            ]

    def drive_api(
        robot: str,
        chooser: str,
        depth: float,
        seed: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, dict[str, Any]]:
        with plain_errors():
            driven = run(robot, chooser, depth, seed, request, progress)
            earned = sum(driven.episode.rewards)
            return str(driven.path), {"return": earned, "experts": driven.episode.experts, "tree": driven.tree}

    chooser.change(
        lambda chosen: gr.Slider(visible=chosen == TREE),
        chooser,
        depth,
        queue=False,
        api_visibility="private",
    )
    run_and_cancel(
        start,
        cancel,
        status,
        services.driving,
        drive_and_show,
        inputs,
        [video, status, timeline, experts, tree],
        show_progress_on=status,
        concurrency_id="drive",
    )
    gr.Button(visible=False).click(
        drive_api,
        inputs,
        [gr.File(label="film", visible=False), gr.JSON(label="result", visible=False)],
        api_name="drive",
        api_description="Let a shipped policy, or a tree in its router's place, drive a robot. Returns a film.",
        concurrency_limit=1,
        concurrency_id="drive",
    )
