"""Harmless rewordings: what a person might have typed instead, meaning the same.

Code, quoted text, digits, and words with digits or symbols in them are never touched: only plain words of prose are.
"""

import random
import re
from collections.abc import Callable, Sequence

# Code in fences, in backticks or by the look of its line; quoted text, which may be what the prompt is about.
_KEPT = re.compile(
    r"```.*?```|`[^`\n]*`|^(?: {4}|\t|def |class |import |from |@|>>>)[^\n]*$|[\"“][^\"“”\n]*[\"”]",
    re.DOTALL | re.MULTILINE,
)
_EDGES = r"(?<![\w'@./:#$\\-]){}(?![\w'@/:#$\\(=-]|\.\w)"  # not a part of an address, a name in code or a formula
_LONG_WORD = re.compile(_EDGES.format("[A-Za-z]{5,}"))
_CAPITALIZED = re.compile(_EDGES.format("[A-Z][a-z]{2,}"))

Change = Callable[[str, random.Random], str]


def reword(prompts: Sequence[str], name: str, seed: int = 0) -> list[str]:
    """Each prompt under one of REWORDINGS; the same seed and prompt give the same text, whatever stands beside it."""
    change = REWORDINGS[name]
    return [change(prompt, random.Random(f"{seed} {name} {prompt}")) for prompt in prompts]


def _in_prose(prompt: str, change: Callable[[str], str]) -> str:
    """Change the prose, and leave code and quoted text as they are."""
    parts, end = [], 0
    for kept in _KEPT.finditer(prompt):
        parts += [change(prompt[end : kept.start()]), kept.group()]
        end = kept.end()
    return "".join([*parts, change(prompt[end:])])


def _typos(prompt: str, rng: random.Random) -> str:
    """Two neighbouring letters inside a word are swapped, in one long word of eight."""

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        if rng.random() > 1 / 8:
            return word
        at = rng.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _in_prose(prompt, lambda prose: _LONG_WORD.sub(swap, prose))


def _lower_case(prompt: str, _: random.Random) -> str:
    """As typed in a hurry: no capitalized words. Single letters and abbreviations keep their meaning and their case."""
    return _in_prose(prompt, lambda prose: _CAPITALIZED.sub(lambda word: word.group().lower(), prose))


def _polite(prompt: str, rng: random.Random) -> str:
    before = rng.choice(["Hello! ", "Hi, could you please help me with this? ", "Please: ", "Good morning. "])
    after = rng.choice(["Thank you!", "Thanks a lot in advance.", "Thank you very much for your help."])
    return f"{before}{prompt}\n{after}"


def _paraphrase(prompt: str, rng: random.Random) -> str:
    """The request is framed in other words, and stands in full inside the frame."""
    frame = rng.choice(
        [
            "I would like an answer to the following.\n{}",
            "Here is what I need from you:\n{}",
            "{}\nThat is my request; answer it.",
            "Consider the request below and respond to it.\n{}",
        ]
    )
    return frame.format(prompt)


def _padding(prompt: str, rng: random.Random) -> str:
    """Words that carry nothing stand before and after."""
    fillers = [
        "So, well, where do I begin.",
        "I have been meaning to ask about this for some time now.",
        "It is raining here and I am sitting at my desk with a cup of tea.",
        "Anyway, that is not the point.",
        "Take the time that you need.",
    ]
    rng.shuffle(fillers)
    return f"{' '.join(fillers[:2])}\n{prompt}\n{fillers[2]}"


REWORDINGS: dict[str, Change] = {
    "typos": _typos,
    "lower case": _lower_case,
    "politeness": _polite,
    "paraphrase": _paraphrase,
    "padding": _padding,
}
