"""How a distillation goes and what came of those that are done, as HTML and as values."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mofme.measure.result import Figure
from mofme.measure.statistics import students_mean
from mofme.ui.learning_curves import learning_curves
from mofme.ui.moe_distillation.choices import NAMES
from mofme.ui.moe_distillation.line_plot import line_plot

if TYPE_CHECKING:
    from mofme.language.moe_distillation.quality import Quality
    from mofme.ui.moe_distillation.running import Run


def status_html(run: "Run") -> str:
    """How far it is, or that it is done."""
    done, steps = len(run.losses), run.plan.steps
    if run.quality is not None:
        return (
            f"<p>Done: {steps} steps. On text that was held back, the student's distance from the teacher went from "
            f"<b>{run.before.kl:.3f}</b> to <b>{run.quality.kl:.3f}</b> nats a token.</p>"
        )
    words = "Measuring" if done == steps else f"Step {done} of {steps}"
    return f"<p>{words}</p><progress max='{steps}' value='{done}'></progress>"


def run_html(run: "Run", finished: "Sequence[Run]") -> str:
    """The curves of this run, with those finished before, and what the teacher leaves out."""
    shown = (*finished, run)  # the last of a name is drawn
    curves = {title_of(one): one.held_out_kl for one in shown}
    steps = max(one.plan.steps for one in shown)
    return (
        f"<div class='plots'>{line_plot('Distance from the teacher, held back', curves, steps)}"
        f"{learning_curves('Loss', {title_of(run): run.losses}) if run.losses else ''}</div>"
        "<p class='note'>Both in nats a token; at distance 0 the student would be the teacher. The distance is on text "
        "held back, and its lines can be compared. The loss is each method's own: only its way down says something.</p>"
        f"{_mass(run)}"
    )


def finished_html(finished: "Sequence[Run]") -> str:
    """Everything that was distilled in this window, and the student as it was before."""
    if not finished:
        return ""
    heads = ("", "Distance", "On its own text", "Cross-entropy", "ROUGE-L, %")
    last = finished[-1]
    lines = [_line("Student before", last.before)]
    lines += [_line(title_of(run), run.quality) for run in finished if run.quality]
    head = "".join(f"<th>{heading}</th>" for heading in heads)
    return (
        "<h4>Distilled in this window</h4>"
        f"<div class='table numbers'><table><tr>{head}</tr>{''.join(lines)}</table></div>"
        "<p class='note' style='margin-top: 8px'>Distance: how far the student's guesses are from the teacher's (KL "
        "divergence), in nats a token, on text held back and on text that the student writes itself. Cross-entropy: "
        f"how much the true text surprises the student (the teacher: {last.teacher:.3f}). These are better the lower. "
        "ROUGE-L: how many words of the true text it writes in the same order; better the higher. With 95 % "
        "intervals over the passages; runs compare fairly only with equal steps, and one seed is no proof: see "
        "below.</p>"
    )


def run_values(run: "Run") -> dict[str, Any]:
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


def title_of(run: "Run") -> str:
    """What tells a run from others: its method and seed, and how the experts were drawn if the method does so."""
    plan = run.plan
    name = NAMES.get(plan.method, plan.method).partition(":")[0]
    drawn = f", {plan.draws} x {100 * plan.chance:g} %" if plan.method == "ka" else ""
    return f"{name}{drawn}, {plan.steps} steps, seed {plan.seed}"


def _quality_values(quality: "Quality") -> dict[str, float]:
    return {
        "kl": quality.kl,
        "own_kl": quality.own_kl,
        "cross_entropy": quality.cross_entropy,
        "rouge_l": quality.rouge_l,
    }


def _line(name: str, quality: "Quality") -> str:
    cells = [
        _said(students_mean(quality.kl_P)),
        _said(students_mean(quality.own_kl_SP.mean(0))),
        _said(students_mean(quality.cross_entropy_P)),
        _said(students_mean(100 * quality.rouge_l_SP.mean(0)), digits=1),
    ]
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in (name, *cells))}</tr>"


def _said(figure: Figure, digits: int = 3) -> str:
    if figure.high is None:
        return f"{figure.value:.{digits}f}"
    return f"{figure.value:.{digits}f} ± {figure.high - figure.value:.{digits}f}"


def _mass(run: "Run") -> str:
    rows = "".join(
        f"<div class='bar'><span>Layer {number}</span><i><b style='width: {100 * share:.0f}%'></b></i>"
        f"<span>{100 * share:.0f} %</span></div>"
        for number, share in enumerate(run.mass_L, start=1)
    )
    return (
        "<h4>What the teacher's idle experts hold</h4><p class='note'>The share of its router's weight that falls on "
        f"experts which take no part: what “all experts”, KA and SAR hope to make use of.</p><div class='bars'>{rows}"
        "</div>"
    )
