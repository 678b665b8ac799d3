import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mofme.core.losses import gkd_loss
from mofme.core.moe import observe_routing
from mofme.core.routing import RoutingDecision
from mofme.errors import Cancelled, ModelError
from mofme.language.pretrained import SmallCausalLM
from mofme.papers.moe_distillation import METHODS, Method
from mofme.papers.moe_distillation.distillation import (
    Plan,
    Progress,
    distil,
    most_experts,
    non_activated_mass,
    sample_experts,
)
from mofme.papers.moe_distillation.quality import Passages, response_logits

MakeLM = Callable[..., SmallCausalLM]
IDS = torch.arange(12).view(2, 6)


def plan(method: str, **others: float) -> Plan:
    return replace(Plan(method, steps=3, batch=4, samplings=1), **others)  # type: ignore[arg-type]


def run(tiny_lm: MakeLM, passages: Passages, arm: Plan, experts: int = 4) -> tuple[float, ...]:
    teacher, student = tiny_lm(experts=experts), tiny_lm("dense", layers=1, seed=1)
    return distil(teacher, student, passages, arm).losses


@pytest.mark.parametrize("method", METHODS)
def test_the_student_learns_and_the_teacher_stays_as_it_was(
    method: Method, tiny_lm: MakeLM, tiny_passages: Passages
) -> None:
    teacher, student = tiny_lm(), tiny_lm("dense", layers=1, seed=1)
    taught = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    told: list[Progress] = []
    found = distil(teacher, student, tiny_passages, plan(method, steps=40, learning_rate=1e-2), told.append)
    assert found.held_out_kl[-1][1] < 0.8 * found.held_out_kl[0][1]
    assert [one.step for one in told] == list(range(1, 41)) and [one.loss for one in told] == list(found.losses)
    assert [one.step for one in told if one.held_out_kl is not None] == list(range(4, 41, 4))
    assert found.held_out_kl[0][0] == 0 and found.held_out_kl[-1] == (40, told[-1].held_out_kl)
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


def test_stopped_it_leaves_the_teachers_routers_alone(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    teacher = tiny_lm()
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    steps: list[Progress] = []
    arm = plan("sar", steps=9, learning_rate=0.1)

    def stop(progress: Progress) -> None:
        steps.append(progress)
        if len(steps) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        distil(teacher, tiny_lm("dense", seed=1), tiny_passages, arm, stop)
    assert len(steps) == 2
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_a_dense_teacher_has_no_experts_to_choose_from(tiny_lm: MakeLM, tiny_passages: Passages) -> None:
    dense, student = tiny_lm("dense"), tiny_lm("dense", layers=1, seed=1)
    assert distil(dense, student, tiny_passages, plan("gkd", steps=1)).losses
    for method in ("ka", "all", "top-(n-1)", "sar"):
        with pytest.raises(ModelError, match="no mixture"):
            distil(dense, student, tiny_passages, plan(method, steps=1))


@pytest.mark.parametrize("unit_gates", [False, True])
@pytest.mark.parametrize(("spared", "count"), [(0, 4), (1, 3)])
def test_most_experts_take_part(tiny_lm: MakeLM, spared: int, count: int, unit_gates: bool) -> None:
    """Their weights sum to 1, or where each would weigh 1 to their number."""
    teacher = tiny_lm()
    teacher.unit_gates = unit_gates  # type: ignore[misc]
    with most_experts(teacher, spared), observe_routing(teacher.module) as observed:
        teacher.logits(IDS)
    assert len(observed) == 2
    for one in observed:
        chosen_TE, logits_TE = one.decision.chosen_TE, one.decision.logits_TE
        assert torch.equal(chosen_TE.sum(-1), torch.full((12,), count))
        total = float(count) if unit_gates else 1.0
        torch.testing.assert_close(one.decision.weights_TE.sum(-1), torch.full((12,), total))
        least_T = logits_TE.argmin(-1)
        assert bool(chosen_TE.gather(-1, least_T[:, None]).any()) == (spared == 0)


def test_idle_mass_against_a_loop(tiny_lm: MakeLM) -> None:
    teacher = tiny_lm(seed=3)
    with torch.no_grad(), observe_routing(teacher.module) as observed:
        teacher.logits(IDS)
    expected = [
        sum(1 - float(row.double().softmax(-1).topk(2).values.sum()) for row in one.decision.logits_TE) / 12
        for one in observed
    ]
    assert non_activated_mass(teacher, IDS).tolist() == pytest.approx(expected, rel=1e-5)


def decision_of(logits: list[float], tokens: int = 1) -> RoutingDecision:
    logits_TE = torch.tensor(logits).expand(tokens, -1)
    return RoutingDecision(torch.zeros_like(logits_TE), logits_TE)


def test_without_chance_the_best_take_part_weighed_by_their_softmax() -> None:
    # e^0 : e^ln3 = 1 : 3
    weights = sample_experts(decision_of([0.0, -5.0, math.log(3)]), 2, chance=0).weights_TE
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.0, 0.75]]))


def test_drawn_experts_follow_the_softmax_without_replacement() -> None:
    # probabilities 1/2, 1/4, 1/4; the pair (0, 1), in either order: 1/2 * 1/2 + 1/4 * 1/2 / (3/4) = 5/12
    decision = decision_of([math.log(2), 0.0, 0.0], tokens=20_000)
    chosen = sample_experts(decision, 2, chance=1, generator=torch.Generator().manual_seed(0)).chosen_TE
    assert torch.equal(chosen.sum(1), torch.full((20_000,), 2))
    share = (chosen[:, 0] & chosen[:, 1]).double().mean().item()
    assert share == pytest.approx(5 / 12, abs=4 * math.sqrt(5 / 12 * 7 / 12 / 20_000))


def test_chance_is_for_each_token_on_its_own() -> None:
    decision = decision_of([1.0, 0.0, 0.0, 0.0], tokens=20_000)
    chosen = sample_experts(decision, 1, chance=0.4, generator=torch.Generator().manual_seed(0)).chosen_TE
    best = math.e / (math.e + 3)
    expected = 0.6 + 0.4 * best
    assert chosen[:, 0].double().mean().item() == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 20_000))


def test_all_experts_can_take_part_and_no_more() -> None:
    weights = sample_experts(decision_of([0.0, 0.0]), 2, chance=0.5).weights_TE
    assert weights.tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="between 1 and 2"):
        sample_experts(decision_of([0.0, 0.0]), 3, chance=0)
