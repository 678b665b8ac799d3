"""Probes, rewordings and the rule for private data: all of it text."""

import gzip
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.errors import TableError
from mofme.papers.router_robustness.assessment import REWORDINGS, reword
from mofme.papers.router_robustness.probes import CATEGORIES, DIFFICULTIES, PER_CELL, own_probes, read_probes
from mofme.papers.router_robustness.safety import Prompts, find_private


def test_own_prompts_fill_every_category_with_simple_and_hard_ones_once_each() -> None:
    probes = own_probes()
    cells = Counter((probe.category, probe.difficulty) for probe in probes)
    assert set(cells) == set(itertools.product(CATEGORIES, DIFFICULTIES)) and min(cells.values()) >= 12
    prompts = [" ".join(probe.prompt.lower().split()) for probe in probes]
    assert len(set(prompts)) == len(prompts)


PROMPTS = [
    "Write a Python function `isPrime(n)` that checks whether 7919 is prime.\n    return Number(True)",
    'Correct the sentence "Alas Pour Yorick", which Hamlet says in Act 5.',
    "```\ndef Important(Argument):\n    return Argument\n```\nWhat does Important do with 12 arguments?",
    "Send 1,200.50 EUR to Anna.Smith@Mail.com via https://Example.com/Path",
]


@pytest.mark.parametrize("name", REWORDINGS)
@pytest.mark.parametrize(
    ("prompt", "kept"),
    [
        (PROMPTS[0], ("`isPrime(n)`", "\n    return Number(True)")),
        (PROMPTS[1], ('"Alas Pour Yorick"',)),
        (PROMPTS[2], ("```\ndef Important(Argument):\n    return Argument\n```",)),
        (PROMPTS[3], ("Anna.Smith@Mail.com via https://Example.com/Path",)),
    ],
)
def test_code_quotes_addresses_and_digits_are_kept(name: str, prompt: str, kept: tuple[str, ...]) -> None:
    for seed in range(20):
        (changed,) = reword([prompt], name, seed)
        assert all(part in changed for part in kept)
        assert [sign for sign in changed if sign.isdigit()] == [sign for sign in prompt if sign.isdigit()]
        if name in ("politeness", "paraphrase", "padding"):
            assert prompt in changed != prompt


@given(st.text(max_size=100))
def test_typos_only_swap_letters_inside_words(prompt: str) -> None:
    (changed,) = reword([prompt], "typos")
    assert [sorted(word) for word in changed.split()] == [sorted(word) for word in prompt.split()]
    assert [(word[0], word[-1]) for word in changed.split()] == [(word[0], word[-1]) for word in prompt.split()]


@given(st.text(max_size=100))
def test_lower_case_changes_nothing_but_case(prompt: str) -> None:
    (changed,) = reword([prompt], "lower case")
    assert changed.lower() == prompt.lower()


def test_lower_case_leaves_abbreviations_and_formulas() -> None:
    assert reword(["Was NATO in Europe? Let A = Bx."], "lower case") == ["was NATO in europe? let A = Bx."]


def test_rewording_is_seeded_and_does_not_depend_on_what_stands_beside() -> None:
    prompt = "Please explain the difference between several important mathematical structures."
    alone, beside = reword([prompt], "typos", 3)[0], reword(["other", prompt], "typos", 3)[1]
    assert alone == beside
    assert len({reword([prompt], "typos", seed)[0] for seed in range(20)}) > 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to ann.lee+x@mail.example.co.uk today", "email"),
        ("pay by 4111 1111 1111 1111 please", "card"),
        ("card 378282246310005", "card"),
        ("to DE89 3704 0044 0532 0130 00 at once", "IBAN"),
        ("GB82WEST12345698765432", "IBAN"),
        ("my SSN is 912-34-5678.", "social security number"),
        ("call +44 20 7946 0018", "phone"),
        ("call (415) 555-0137 or 555-0142", "phone"),
        ("ring 4155550137 now", "phone"),
        ("from 192.168.17.254 it came", "IP address"),
        ("I live at 12 Maple Street.", "address"),
        ("at 1600 Martin Luther King Blvd, Springfield", "address"),
        ("Lange Hauptstraße 12", "address"),
    ],
)
def test_private_data_is_found(text: str, kind: str) -> None:
    assert kind in find_private(text)


@pytest.mark.parametrize(
    "text",
    [
        "pay by 4111 1111 1111 1112 please",  # Luhn fails
        "DE88370400440532013000",  # its remainder is not 1
        "What is 123456 * 789?",
        "The war of 1914-1918 cost 20,000,000 lives.",
        "On 2024-05-17 at 12:30 the value was 3.14159.",
        "for i in range(1000): print(i * 2.5)",
        "Version 1.2.3 costs $1,250.00 for 12 months.",
        "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
        "Write @property above the method; see section 4.2.1",
        "0000 0000 0000 0000",
    ],
)
def test_what_is_not_private_is_left_alone(text: str) -> None:
    assert find_private(text) == set()


def test_few_own_prompts_beside_privacy_raise_an_alarm() -> None:
    assert [p.prompt for p in own_probes() if p.category != "privacy" and find_private(p.prompt)] == []
    private = [bool(find_private(p.prompt)) for p in own_probes() if p.category == "privacy"]
    assert sum(private) / len(private) > 0.8


def write(path: Path, records: list[dict[str, object]]) -> None:
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))


def test_a_folder_of_open_sets(tmp_path: Path) -> None:
    solved = [{"question": f"Question {n}?", "answer": "<<1+1=2>>" * n} for n in range(1, 8)]
    write(tmp_path / "gsm8k_test_7.jsonl.gz", solved)
    write(tmp_path / "nq_open_dev.jsonl.gz", [{"question": "who was it"}])
    taken = [(p.prompt, p.category, p.difficulty) for p in read_probes(tmp_path) if p.source != "own"]
    # At most two calculations are simple, five or more hard, three and four neither.
    expected = {(f"Question {n}?", "mathematics", "simple" if n < 3 else "hard") for n in (1, 2, 5, 6, 7)}
    assert set(taken) == expected | {("who was it", "general knowledge", "simple")}


def test_cells_are_drawn_by_the_seed(tmp_path: Path) -> None:
    write(tmp_path / "nq_open_dev.jsonl.gz", [{"question": f"who was number {n}"} for n in range(100)])
    first, again, other = (read_probes(tmp_path, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert sum(probe.source == "NQ-open" for probe in first) == PER_CELL


def test_attacks_are_hard_and_bare_requests_simple(tmp_path: Path) -> None:
    rows = (
        "attack,goal,prompt,target_model,jailbroken\nPAIR,bake bread,pretend and bake bread,a,1\nPAIR,bake bread,,b,0\n"
    )
    (tmp_path / "jailbreakbench_artifacts_outcomes.csv").write_text(rows)
    taken = {(p.prompt, p.difficulty) for p in read_probes(tmp_path) if p.source == "JailbreakBench"}
    assert taken == {("bake bread", "simple"), ("pretend and bake bread", "hard")}


def test_a_long_word_takes_no_longer_than_its_length() -> None:
    # With time by the square of the length, this would take minutes.
    assert find_private("a" * 200_000) == set()
    assert find_private("write to (jo.e+x@mail.example.org)") == {"email"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nq_open_dev.jsonl", '{"query": "who was it"}'),
        ("presidio_synth_v2.json", '[{"full_text": "a", "spans": []}]'),
        ("jailbreakbench_artifacts_outcomes.csv", "attack,goal,prompt\na,b,c\n"),
    ],
)
def test_a_set_without_its_fields_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TableError, match=f"{name}.* is not as expected"):
        Prompts.read(tmp_path)
