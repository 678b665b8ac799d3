"""Tab Distillation: a mixture of experts teaches a smaller model on the spot, by a method of the visitor's choice.

Axis names: L layers.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mofme.measure.statistics import students_mean
from mofme.papers.moe_distillation import METHODS, Method
from mofme.ui.chart import learning_curves, line_plot
from mofme.ui.html import bars, measured_box, table
from mofme.ui.models import Services
from mofme.ui.runs import Job
from mofme.ui.uploads import KEEP_SECONDS, file_box, read_own_text
from mofme.ui.work import AT_ONCE, Endpoint, start_and_cancel, status_box, work

if TYPE_CHECKING:
    from mofme.language.pretrained import CausalLM
    from mofme.papers.moe_distillation.distillation import Plan, Progress
    from mofme.papers.moe_distillation.quality import Quality

MEASURED = ("moe_distillation",)
NAMES: dict[Method, str] = {
    "kd": "KD: true text and teacher",
    "gkd": "GKD: its own text",
    "all": "All experts",
    "top-(n-1)": "All experts but one",
    "ka": "KA: experts by chance",
    "sar": "SAR: routers learn too",
}
FIRST: Method = "ka"

_SAMPLINGS = 2
_COMPARED = 6  # lines that can still be told apart
_REFRESH = 1.0  # seconds
_INTRODUCTION = (
    "A teacher, a small language model with eight experts in each layer, of which a word uses two, passes on what it "
    "knows to a student a fraction of its size. The question of the paper: do the experts that a word does not use "
    "know something worth teaching, too?"
)


@dataclass(frozen=True)
class Run:
    """A distillation so far: the loss of each step, the held-out KL by step, and once it is done what came of it.

    `mass_L` is the share of the teacher's routing weight on experts that take no part, `teacher` its cross-entropy.
    """

    plan: "Plan"
    mass_L: tuple[float, ...]
    teacher: float
    before: "Quality"
    losses: tuple[float, ...] = ()
    held_out_kl: tuple[tuple[int, float], ...] = ()
    quality: "Quality | None" = None


def build(services: Services) -> None:
    """Draw the tab and connect it."""
    finished = gr.State([], time_to_live=KEEP_SECONDS)
    gr.Markdown(_INTRODUCTION, elem_classes="note")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            choices = [(NAMES[method], method) for method in METHODS]
            method = gr.Radio(choices, value=FIRST, label="Method", elem_id="method")
            explained = gr.Markdown(METHODS[FIRST], elem_classes="note", elem_id="explained")
            steps = gr.Slider(
                10, 500, value=100, step=10, label="Steps", info="100 take about a minute on a laptop.", elem_id="steps"
            )
            seed = gr.Slider(0, 1000, value=0, step=1, label="Seed", info="Which prompts are met, and in which order.")
            with gr.Accordion("More options", open=False):
                draws = gr.Slider(
                    1, 8, value=2, step=1, label="KA: teachers a step", info="Each draws its experts anew."
                )
                info = "How often a word's experts are drawn instead of chosen. The paper's best is 5."
                chance = gr.Slider(0, 100, value=5, step=1, label="KA: experts by chance, %", info=info)
                own = file_box(label="Your own text (.txt)", file_types=[".txt"], height=120, elem_id="distil-text")
                gr.Markdown(
                    "Without one, A Midsummer Night's Dream is taken. The last tenth is held back to measure on.",
                    elem_classes="note",
                )
            buttons = start_and_cancel("Distil", "distil")
        with gr.Column(scale=6, min_width=320):
            status = status_box(
                "How the student comes closer to its teacher appears here. Distil by several methods, and they are "
                "compared.",
                "distillation",
            )
            curves = gr.HTML(padding=False, elem_id="curves")
    together = gr.HTML(padding=False, elem_id="distilled")
    measured_box(*MEASURED)

    def run(
        job: Job,
        method: Method,
        steps: int,
        seed: int,
        draws: int,
        chance: float,
        own: str | None = None,
        finished: Sequence[Run] = (),
    ) -> Iterator[list[Run]]:
        """Yields the runs of this window, the last of them as far as it is."""
        from mofme.papers.moe_distillation.distillation import Plan

        plan = Plan(method, int(steps), int(seed), draws=int(draws), chance=chance / 100, samplings=_SAMPLINGS)
        name = Path(own).name if own else "The text"
        for latest in distil_live(*services.distillation_pair(), read_own_text(own), name, plan, job):
            yield [*finished, latest][-_COMPARED:]

    method.change(lambda method: METHODS[method], method, explained, **AT_ONCE)
    work(
        run,
        [method, steps, seed, draws, chance, own, finished],
        {
            status: lambda runs: status_html(runs[-1]),
            curves: run_html,
            together: lambda runs: finished_html(runs) if runs[-1].quality else gr.skip(),
            finished: lambda runs: runs if runs[-1].quality else gr.skip(),
        },
        buttons,
        status,
        services.limits.training_seconds,
        Endpoint(
            "distil",
            f"Distil the shipped mixture of experts into the shipped student. method: {', '.join(METHODS)}. `draws` "
            "and `chance` (in percent) are for ka alone. Returns losses and how close the student has come.",
            {"result": gr.JSON},
            lambda runs: run_values(runs[-1]),
        ),
    )


def distil_live(
    teacher: "CausalLM", student: "CausalLM", text: str, name: str, plan: "Plan", job: Job
) -> Iterator[Run]:
    """Distil, and hand out how it goes about once a second, the last time when all is measured.

    Raises MofmeError when the job is stopped, its time is up, or the text is too short.
    """
    from mofme.papers.moe_distillation.distillation import distil, non_activated_mass
    from mofme.papers.moe_distillation.quality import cross_entropy, measure, passages_of

    passages = passages_of(text, teacher, name=name)
    mass_L = non_activated_mass(teacher, passages.held_out_PT).tolist()
    truth = cross_entropy(teacher, passages.held_out_PT, passages.prompt).mean()
    run = Run(plan, tuple(mass_L), float(truth), measure(student, teacher, passages, plan.samplings))
    yield run
    seen: list[Progress] = []

    def report(progress: "Progress") -> None:
        seen.append(progress)
        job.check()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(distil, teacher, student, passages, plan, report)
        try:
            while wait([working], _REFRESH).not_done:
                so_far = seen[:]
                looks = [(one.step, one.held_out_kl) for one in so_far if one.held_out_kl is not None]
                yield replace(run, losses=tuple(one.loss for one in so_far), held_out_kl=tuple(looks))
        finally:
            job.cancel()  # where nobody watches any more
        done = working.result()
    yield replace(run, losses=done.losses, held_out_kl=done.held_out_kl, quality=done.quality)


def status_html(run: Run) -> str:
    """How far it is, or that it is done."""
    done, steps = len(run.losses), run.plan.steps
    if run.quality is not None:
        return (
            f"<p>Done: {steps} steps. On text that was held back, the student's distance from the teacher went from "
            f"<b>{run.before.kl:.3f}</b> to <b>{run.quality.kl:.3f}</b> nats a token.</p>"
        )
    words = "Measuring" if done == steps else f"Step {done} of {steps}"
    return f"<p>{words}</p><progress max='{steps}' value='{done}'></progress>"


def run_html(runs: Sequence[Run]) -> str:
    """The curves of the last run, with those finished before, and what the teacher leaves out."""
    run = runs[-1]
    curves = {title_of(one): one.held_out_kl for one in runs}  # the last of a name is drawn
    steps = max(one.plan.steps for one in runs)
    shares = {f"Layer {number}": share for number, share in enumerate(run.mass_L, start=1)}
    return (
        f"<div class='plots'>{line_plot('Distance from the teacher, held back', curves, steps)}"
        f"{learning_curves('Loss', {title_of(run): run.losses}) if run.losses else ''}</div>"
        "<p class='note'>Both in nats a token; at distance 0 the student would be the teacher. The distance is on text "
        "held back, and its lines can be compared. The loss is each method's own: only its way down says something.</p>"
        "<h2>What the teacher's idle experts hold</h2><p class='note'>The share of its router's weight that falls on "
        f"experts which take no part: what “all experts”, KA and SAR hope to make use of.</p>{bars(shares)}"
    )


def finished_html(finished: Sequence[Run]) -> str:
    """Everything that was distilled in this window, and the student as it was before."""
    if not finished:
        return ""
    heads = ("", "Distance", "On its own text", "Cross-entropy", "ROUGE-L, %")
    last = finished[-1]
    rows = [_line("Student before", last.before)]
    rows += [_line(title_of(run), run.quality) for run in finished if run.quality]
    return (
        f"<h2>Distilled in this window</h2>{table(heads, rows)}<p class='note'>Distance: how far the student's guesses "
        "are from the teacher's (KL divergence), in nats a token, on text held back and on text that the student "
        "writes itself. Cross-entropy: how much the true text surprises the student (the teacher: "
        f"{last.teacher:.3f}). These are better the lower. ROUGE-L: how many words of the true text it writes in the "
        "same order; better the higher. With 95 % intervals over the passages; runs compare fairly only with equal "
        "steps, and one seed is no proof: see below.</p>"
    )


def run_values(run: Run) -> dict[str, Any]:
    """The same for programs: in nats a token, ROUGE-L and the mass as shares."""
    return {
        "method": run.plan.method,
        "steps": run.plan.steps,
        "seed": run.plan.seed,
        "losses": list(run.losses),
        "held_out_kl": [list(look) for look in run.held_out_kl],
        "non_activated_mass": list(run.mass_L),
        "teacher_cross_entropy": run.teacher,
        "before": _quality_values(run.before),
        "after": _quality_values(run.quality) if run.quality else None,
    }


def title_of(run: Run) -> str:
    """What tells a run from others: its method and seed, and how the experts were drawn if the method does so."""
    plan = run.plan
    name = NAMES[plan.method].partition(":")[0]
    drawn = f", {plan.draws} x {100 * plan.chance:g} %" if plan.method == "ka" else ""
    return f"{name}{drawn}, {plan.steps} steps, seed {plan.seed}"


def _quality_values(quality: "Quality") -> dict[str, float]:
    return {name: getattr(quality, name) for name in ("kl", "own_kl", "cross_entropy", "rouge_l")}


def _line(name: str, quality: "Quality") -> Sequence[str]:
    nats = quality.kl_P, quality.own_kl_SP.mean(0), quality.cross_entropy_P
    rouge = students_mean(100 * quality.rouge_l_SP.mean(0)).text(digits=1)
    return [name, *(students_mean(values_P).text(digits=3) for values_P in nats), rouge]
