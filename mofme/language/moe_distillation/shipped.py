"""The pair that comes with the project, for a run on the spot."""

from mofme.files import WEIGHTS
from mofme.language.causal_lm import SmallCausalLM
from mofme.language.small_lm import load_lm


def shipped_teacher() -> SmallCausalLM:
    """A mixture of eight experts a layer, of which a token visits two. Raises ModelError if it is missing."""
    return SmallCausalLM(*load_lm(WEIGHTS / "distillation-teacher"))


def fresh_student() -> SmallCausalLM:
    """The smaller dense student as it was before any distillation, a new one each time."""
    return SmallCausalLM(*load_lm(WEIGHTS / "distillation-student"))
