"""Teachers and students: the pair that ships, and a tiny Llama of transformers, dense and converted."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mofme.errors import ModelError
from mofme.language.pretrained import PretrainedCausalLM, PretrainedLM, SmallCausalLM
from mofme.papers.ladimo.conversion import convert_layers, save_converted
from mofme.papers.ladimo.converted_layer import Recipe
from mofme.papers.moe_distillation import Method
from mofme.papers.moe_distillation.distillation import (
    Plan,
    distil,
    fresh_student,
    keep_layers,
    mixtures,
    most_experts,
    non_activated_mass,
    open_lm,
    open_student,
    save_student,
    shipped_teacher,
)
from mofme.papers.moe_distillation.quality import Passages, cross_entropy

MakeLM = Callable[..., PretrainedLM]
IDS = torch.arange(1, 21).view(2, 10)
TEXT = [(i * i) % 60 + 1 for i in range(1024)]
RECIPE = Recipe(experts=4, active=2, tokens=512, learned=False)
PROBLEM = (
    "A farmer has 12 cows and buys 3 more every week. How many cows does he have after 4 weeks?\n"
    "He buys 3 * 4 = 12 cows in 4 weeks. So he has 12 + 12 = 24 cows. The king is gone, and all his men with him."
)


@pytest.fixture(scope="module")
def converted(tiny_pretrained: MakeLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, lm = tmp_path_factory.mktemp("converted"), tiny_pretrained()
    convert_layers(lm.model, TEXT, RECIPE, folder / "work")
    save_converted(folder / "teacher", lm, RECIPE, "CC0", {}, {})
    return folder / "teacher"


def test_with_all_experts_weighing_alike_a_converted_model_is_the_dense_one(
    tiny_pretrained: MakeLM, converted: Path
) -> None:
    """Gates of 1 for all are weights that sum to 4, where the router scores all experts alike."""
    teacher, dense = open_lm(str(converted)), PretrainedCausalLM(tiny_pretrained())
    with torch.no_grad():
        for name, parameter in teacher.module.named_parameters():
            if ".router." in name:
                parameter.zero_()
        with most_experts(teacher, spared=0):
            logits = teacher.logits(IDS)
        torch.testing.assert_close(logits, dense.logits(IDS), atol=2e-2, rtol=2e-2)  # stored in half precision
    assert non_activated_mass(teacher, IDS).tolist() == pytest.approx([0.5] * 3)


@pytest.mark.parametrize("method", ["kd", "ka", "sar"])
def test_a_converted_model_teaches_one_of_fewer_layers(
    method: Method, tiny_pretrained: MakeLM, converted: Path
) -> None:
    teacher, student = open_lm(str(converted)), PretrainedCausalLM(tiny_pretrained(seed=1))
    keep_layers(student, 2)
    before = {name: value.clone() for name, value in teacher.module.state_dict().items()}
    passages = Passages(IDS.repeat(8, 1), IDS, prompt=4)
    found = distil(teacher, student, passages, Plan(method, steps=12, batch=4, learning_rate=1e-2, samplings=1))
    # Half of what kd learns is the text, which is not the teacher's.
    curve = found.losses if method == "kd" else [kl for _, kl in found.held_out_kl]
    assert curve[-1] < curve[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.module.state_dict().items())


def test_a_student_of_fewer_layers_is_saved_and_opened(tiny_pretrained: MakeLM, tmp_path: Path) -> None:
    student = PretrainedCausalLM(tiny_pretrained(layers=5))
    keep_layers(student, 3)
    assert [layer.self_attn.layer_idx for layer in student.lm.model.model.layers] == [0, 1, 2]
    first, last = (student.lm.model.model.layers[index] for index in (0, -1))
    whole = tiny_pretrained(layers=5).model.model.layers
    assert torch.equal(first.mlp.up_proj.weight, whole[0].mlp.up_proj.weight)
    assert torch.equal(last.mlp.up_proj.weight, whole[4].mlp.up_proj.weight)
    expected = student.logits(IDS)
    save_student(student, tmp_path / "student", "CC0", {"method": "ka"}, {"held-out KL": 1.0})
    opened = open_student(str(tmp_path / "student"))
    torch.testing.assert_close(opened.logits(IDS), expected, atol=2e-2, rtol=2e-2)
    assert opened.decode(opened.encode("Every good boy")).replace(" ", "") == "Everygoodboy"


def test_a_small_model_is_saved_and_opened(tiny_lm: Callable[..., SmallCausalLM], tmp_path: Path) -> None:
    student = tiny_lm("dense")
    save_student(student, tmp_path / "small", "CC0", {}, {})
    opened = open_lm(str(tmp_path / "small"))
    ids = torch.tensor([opened.encode("the cat")])
    torch.testing.assert_close(opened.logits(ids), student.logits(ids), atol=2e-2, rtol=2e-2)
    with pytest.raises(ModelError, match="models of transformers"):
        open_student(str(tmp_path / "small"), layers=1)


def test_what_cannot_be_a_student_is_said_at_once(tiny_pretrained: MakeLM, converted: Path) -> None:
    with pytest.raises(ModelError, match="give a dense one"):
        open_student(str(converted))
    with pytest.raises(ModelError, match="between 1 and 2"):
        keep_layers(PretrainedCausalLM(tiny_pretrained()), 3)


def test_models_of_other_tokens_cannot_teach(tiny_pretrained: MakeLM, tiny_lm: Callable[..., SmallCausalLM]) -> None:
    passages = Passages(IDS, IDS, prompt=4)
    with pytest.raises(ModelError, match="share a vocabulary"):
        distil(tiny_lm(), PretrainedCausalLM(tiny_pretrained()), passages, Plan("gkd", steps=1))


def test_the_teacher_knows_more_than_the_student() -> None:
    teacher, student = shipped_teacher(), fresh_student()
    ids = torch.tensor([teacher.encode(PROBLEM)])
    assert teacher.decode(ids[0].tolist()) == PROBLEM and student.encode(PROBLEM) == ids[0].tolist()
    taught, learned = (float(cross_entropy(model, ids, 4).mean()) for model in (teacher, student))
    assert taught < learned - 0.3
    assert len(mixtures(teacher)) == 2
