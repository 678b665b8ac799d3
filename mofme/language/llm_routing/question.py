"""What of a prompt is worth embedding: the question itself, not the worked examples in front of it.

The encoder reads 256 tokens. RouterBench's ARC and Winogrande prompts open with the same worked examples, longer than
that: embedded as they stand, they would all be one point.
"""

import re

_CUE = r"\b(answer|a|output|response|solution|label)[ \t]*:"
_OPEN_ANSWER = re.compile(_CUE + r"\Z", re.IGNORECASE)
_FILLED_ANSWER = re.compile(_CUE + r"[ \t]*(?:\n[ \t]*)?[^\s][^\n]{0,300}\n[ \t]*\n", re.IGNORECASE)
_EXAMPLES = 2  # one alone may be part of the question
_LONGEST = 4000


def question_of(prompt: str) -> str:
    """The last question of a few-shot prompt, any other prompt as it is; of very long ones, the start and the end.

    Few-shot means: it ends with "Answer:" or the like left open, and two such were filled in before. Only this prompt
    is looked at, so that a live prompt is treated as those of the table were.
    """
    question = prompt.strip()
    if cue := _OPEN_ANSWER.search(question):
        filled = [found for found in _FILLED_ANSWER.finditer(question) if found[1].lower() == cue[1].lower()]
        if len(filled) >= _EXAMPLES:
            question = question[filled[-1].end() :].strip()
    if len(question) > _LONGEST:
        question = f"{question[: _LONGEST // 2]}\n{question[-_LONGEST // 2 :]}"
    return question
