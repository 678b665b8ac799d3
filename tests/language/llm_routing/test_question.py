import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.language.llm_routing.question import question_of

HINT = 'Print only a single choice from "A" or "B".'
LAST = f"Which of them is a mammal?\nA) trout\nB) whale\n{HINT}"
EXAMPLES = [
    f"Which of them is a metal?\nA) iron\nB) oak\n{HINT}\nAnswer:\nA\n\n",
    f"Which of them is a bird?\nA) eel\nB) crow\n{HINT}\nAnswer:\nB\n\n",
]


@pytest.mark.parametrize("same_line", [False, True])
def test_worked_examples_are_dropped(same_line: bool) -> None:
    """RouterBench's ARC has the answer on a line of its own, its Winogrande has "Answer:" behind the hint."""
    prompt = "".join(EXAMPLES) + LAST + "\nAnswer:"
    expected = LAST + "\nAnswer:"
    if same_line:
        prompt, expected = prompt.replace("\nAnswer:", " Answer:"), expected.replace("\nAnswer:", " Answer:")
    assert question_of(prompt) == expected


def test_questions_and_answers_in_short() -> None:
    assert question_of("Q: 1 + 1?\nA: 2\n\nQ: 2 + 2?\nA: 4\n\nQ: 3 + 4?\nA:") == "Q: 3 + 4?\nA:"


@pytest.mark.parametrize(
    "prompt",
    [
        "who wrote i will follow you into the dark",
        EXAMPLES[0] + LAST + "\nAnswer:",  # one example may be part of the question
        "".join(EXAMPLES) + "Which of these answers is wrong?",  # nothing is left open
        "Example 1:\n  Output: 3\n\nExample 2:\n  Output: 4\n\nWrite the function that does this.",
        "A: the first\n\nB: the second\n\nAnswer:",
    ],
)
def test_other_prompts_stay_as_they_are(prompt: str) -> None:
    assert question_of(prompt) == prompt


def test_of_a_very_long_prompt_both_ends_are_kept() -> None:
    question = question_of("Summarise this. " + "word " * 100_000 + "In one sentence, please.")
    assert question.startswith("Summarise this.") and question.endswith("In one sentence, please.")
    assert len(question) <= 4001


def test_prompts_that_share_their_examples_differ_in_what_is_left() -> None:
    header = "".join(EXAMPLES) * 20
    assert question_of(header + "Is a cat a mammal?\nAnswer:") == "Is a cat a mammal?\nAnswer:"
    assert question_of(header + "Is a dog a mammal?\nAnswer:") == "Is a dog a mammal?\nAnswer:"


@given(st.text())
def test_any_text_has_a_question(text: str) -> None:
    question = question_of(text)
    assert bool(question) == bool(text.strip())
    assert question_of(question) == question


def test_a_long_run_of_blanks_takes_no_longer_than_its_length() -> None:
    # With time by the square of the length, this would take hours.
    blanks = " " * 2_000_000
    assert question_of(f"Q: a\nA:{blanks}one\n\nQ: b\nA: two\n\nQ: c\nA:") == "Q: c\nA:"
