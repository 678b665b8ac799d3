"""A router by rule: long prompts, code, mathematics and questions for reasons go to the strong model."""

import re

import numpy as np

from mofme.language.llm_routing.baselines.preference import BoolArray
from mofme.language.llm_routing.baselines.strong_or_weak import StrongOrWeak
from mofme.language.llm_routing.table import FloatArray
from mofme.language.sentence_encoder import Queries, question_of

CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+|\bimport \w+|#include|\bfunction\b|=>|[{};]$|\bassert\b", re.MULTILINE)
MATHS = re.compile(
    r"\\[a-z]+\{|\$[^$\n]{1,80}\$|\d\s*[-+*/^=<>]\s*\d|\b(?:equation|integral|probability|theorem|prove|solve)\b"
)
REASONS = re.compile(r"\b(?:why|how|explain|compare|derive|design|analy[sz]e|step by step)\b", re.IGNORECASE)


def complexity(question: str) -> float:
    """`log2(1 + words) + 2 if code + 2 if mathematics + 1 if it asks for reasons`: doubling the length counts one."""
    signs = 2 * bool(CODE.search(question)) + 2 * bool(MATHS.search(question)) + bool(REASONS.search(question))
    return float(np.log2(1 + len(question.split())) + signs)


class ComplexityRule(StrongOrWeak):
    """Scores the question in each prompt by `complexity`; the two models and the thresholds come from training."""

    name = "complexity rule"

    def learn(self, queries: Queries, strong_wins_N: BoolArray) -> FloatArray:
        return self.score(queries)

    def score(self, queries: Queries) -> FloatArray:
        return np.array([complexity(question_of(prompt)) for prompt in queries.prompts])
