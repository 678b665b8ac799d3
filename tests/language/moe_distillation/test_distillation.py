from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch

from mofme.core.losses import gkd_loss
from mofme.errors import Cancelled, ModelError
from mofme.language.causal_lm import SmallCausalLM
from mofme.language.moe_distillation.distillation import Plan, Progress, distil
from mofme.language.moe_distillation.methods import METHODS, Method
from mofme.language.moe_distillation.passages import Passages
from mofme.language.moe_distillation.quality import response_logits

MakeLM = Callable[..., SmallCausalLM]


def plan(method: str, **others: float) -> Plan:
    return replace(Plan(method, steps=3, batch=4, samplings=1), **others)  # type: ignore[arg-type]


def run(tiny_lm: MakeLM, passages: Passages, arm: Plan, experts: int = 4) -> tuple[float, ...]:
    teacher, student = tiny_lm(experts=experts), tiny_lm("dense", layers=1, seed=1)
    return distil(teacher, student, passages, arm).losses


def test_every_method_has_a_sentence() -> None:
    assert tuple(METHODS) == get_args(Method)


@pytest.mark.parametrize("method", METHODS)
def test_the_student_learns_and_the_teacher_stays_as_it_was(
    method: Method, tiny_lm: MakeLM, tiny_passages: Passages
) -> None:
    teacher, student = tiny_lm(), tiny_lm("dense", layers=1, seed=1)
    taught = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    found = distil(teacher, student, tiny_passages, plan(method, steps=40, learning_rate=1e-2))
    assert found.held_out_kl[-1][1] < 0.8 * found.held_out_kl[0][1]
    for name, value in teacher.module.state_dict().items():
        assert torch.equal(value, taught[name])
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())


def test_the_first_loss_is_the_divergence_on_what_the_student_wrote(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    teacher, student = tiny_lm(), tiny_lm("dense", layers=1, seed=1)
    # The same draws by hand: four passages, then six tokens after each prompt of four.
    index = torch.randint(32, (4,), generator=torch.Generator().manual_seed(0))
    prompt = tiny_passages.learned_PT[index, :4]
    written = student.write(prompt, 6, torch.Generator().manual_seed(1))
    ids = torch.cat([prompt, written], dim=1)
    with torch.no_grad():
        p, q = (model.logits(ids).double().softmax(-1) for model in (student, teacher))
    expected = sum(
        float(p[text, at, token] * (p[text, at, token] / q[text, at, token]).log())
        for text in range(4)
        for at in range(3, 9)  # position 3 predicts the first token after the prompt
        for token in range(260)
    ) / (4 * 6)
    assert run(tiny_lm, tiny_passages, plan("gkd", steps=1))[0] == pytest.approx(expected, rel=1e-4)


def test_one_draw_without_chance_is_the_control_to_the_last_bit(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    ka = run(tiny_lm, tiny_passages, plan("ka", draws=1, chance=0))
    assert ka == run(tiny_lm, tiny_passages, plan("top-(n-1)"))
    assert ka != run(tiny_lm, tiny_passages, plan("ka", chance=0.5))


def test_with_as_many_experts_as_it_visits_all_is_gkd(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    everything = run(tiny_lm, tiny_passages, plan("all"), experts=2)
    assert everything == pytest.approx(run(tiny_lm, tiny_passages, plan("gkd"), experts=2), rel=1e-4)
    assert run(tiny_lm, tiny_passages, plan("all")) != pytest.approx(run(tiny_lm, tiny_passages, plan("gkd")), rel=1e-4)


def test_sar_teaches_with_all_experts_after_routers_learned(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    """At rate 0 routers stay, and so does the student: what is left is `all`; else they come nearer to the student."""
    still = plan("sar", learning_rate=0)
    assert run(tiny_lm, tiny_passages, still) == run(tiny_lm, tiny_passages, plan("all", learning_rate=0))
    first_sar = run(tiny_lm, tiny_passages, plan("sar", learning_rate=0.1))[0]
    assert first_sar != run(tiny_lm, tiny_passages, plan("all", learning_rate=0.1))[0]


def test_kd_reads_true_text(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    teacher, student = tiny_lm(), tiny_lm("dense", layers=1, seed=1)
    index = torch.randint(32, (4,), generator=torch.Generator().manual_seed(0))
    ids = tiny_passages.learned_PT[index]
    with torch.no_grad():
        log_p, log_q = (response_logits(model, ids, 4).log_softmax(-1) for model in (student, teacher))
    true = -log_p.gather(-1, ids[:, 4:, None]).mean()
    expected = 0.5 * true + 0.5 * gkd_loss(log_q, log_p)  # forward: KL(teacher || student)
    assert run(tiny_lm, tiny_passages, plan("kd", steps=1))[0] == pytest.approx(float(expected), rel=1e-4)


def test_it_reports_every_step_and_looks_now_and_then(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    told: list[Progress] = []
    arm = plan("gkd", steps=30)
    found = distil(tiny_lm(), tiny_lm("dense", seed=1), tiny_passages, arm, told.append)
    assert [one.step for one in told] == list(range(1, 31))
    assert [one.loss for one in told] == list(found.losses)
    assert [one.step for one in told if one.held_out_kl is not None] == list(range(3, 31, 3))
    assert found.held_out_kl[0][0] == 0 and found.held_out_kl[-1] == (30, told[-1].held_out_kl)


def test_stopped_it_leaves_the_teachers_routers_alone(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    teacher = tiny_lm()
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    steps: list[Progress] = []
    arm = plan("sar", steps=9, learning_rate=0.1)
    with pytest.raises(Cancelled):
        distil(teacher, tiny_lm("dense", seed=1), tiny_passages, arm, steps.append, lambda: len(steps) == 2)
    assert len(steps) == 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_a_dense_teacher_has_no_experts_to_choose_from(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    dense, student = tiny_lm("dense"), tiny_lm("dense", layers=1, seed=1)
    assert distil(dense, student, tiny_passages, plan("gkd", steps=1)).losses
    for method in ("ka", "all", "top-(n-1)", "sar"):
        with pytest.raises(ModelError, match="no mixture"):
            distil(dense, student, tiny_passages, plan(method, steps=1))
