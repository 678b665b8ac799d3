"""The pair that comes with the project."""

import torch

from mofme.language.moe_distillation.quality import cross_entropy
from mofme.language.moe_distillation.shipped import fresh_student, shipped_teacher
from mofme.language.moe_distillation.teaching import mixtures

TEXT = (
    "A farmer has 12 cows and buys 3 more every week. How many cows does he have after 4 weeks?\n"
    "He buys 3 * 4 = 12 cows in 4 weeks. So he has 12 + 12 = 24 cows. The king is gone, and all his men with him."
)


def test_the_teacher_knows_more_than_the_student() -> None:
    teacher, student = shipped_teacher(), fresh_student()
    ids = torch.tensor([teacher.encode(TEXT)])
    assert teacher.decode(ids[0].tolist()) == TEXT and student.encode(TEXT) == ids[0].tolist()
    taught, learned = (float(cross_entropy(model, ids, 4).mean()) for model in (teacher, student))
    assert taught < learned - 0.3
    assert len(mixtures(teacher)) == 2


def test_a_student_is_a_new_one_each_time() -> None:
    first, second = fresh_student(), fresh_student()
    with torch.no_grad():
        next(first.module.parameters()).zero_()
    assert next(second.module.parameters()).abs().sum() > 0
