"""A short distillation on the spot, watched while it runs.

Axis names: L layers.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from mofme.language.moe_distillation.causal_lm import CausalLM
from mofme.language.moe_distillation.distillation import Plan, Progress, distil
from mofme.language.moe_distillation.passages import passages_of
from mofme.language.moe_distillation.quality import Quality, cross_entropy, measure
from mofme.language.moe_distillation.teaching import non_activated_mass
from mofme.ui.jobs import Job

_REFRESH = 1.0  # seconds


@dataclass(frozen=True)
class Run:
    """A distillation so far: the loss of each step, the held-out KL by step, and once it is done what came of it.

    `mass_L` is the share of the teacher's routing weight on experts that take no part, `teacher` its cross-entropy.
    """

    plan: Plan
    mass_L: tuple[float, ...]
    teacher: float
    before: Quality
    losses: tuple[float, ...] = ()
    held_out_kl: tuple[tuple[int, float], ...] = ()
    quality: Quality | None = None


def distil_live(teacher: CausalLM, student: CausalLM, text: str, plan: Plan, job: Job) -> Iterator[Run]:
    """Distil, and hand out how it goes about once a second, the last time when all is measured.

    Raises MofmeError when the job is stopped, its time is up, or the text is too short.
    """
    passages = passages_of(text, teacher)
    mass_L = non_activated_mass(teacher, passages.held_out_PT).tolist()
    truth = cross_entropy(teacher, passages.held_out_PT, passages.prompt).mean()
    run = Run(plan, tuple(mass_L), float(truth), measure(student, teacher, passages, plan.samplings))
    yield run
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
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
