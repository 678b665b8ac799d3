"""Claims are marked by their criteria."""

from dataclasses import replace

import pytest

from mofme.measure.result import Figure, Result, Row
from mofme.papers.router_robustness import claims, judge, mark, seen
from mofme.papers.router_robustness.experiment import as_result
from mofme.papers.router_robustness.probes import Probe
from mofme.papers.router_robustness.routers import TRAINERS

FIRST, *OTHERS = LEARNT = [name for name in TRAINERS if name != "complexity rule"]


def near(value: float, half: float = 1.0) -> Figure:
    return Figure(value, value - half, value + half)


def by_router(first: float, others: float) -> dict[str, Figure]:
    return {name: near(first if name == FIRST else others) for name in LEARNT}


def rows() -> list[Row]:
    """The first router sends all coding and no jailbreak to the strong model; the others half of everything."""
    calls = {"coding": 100, "mathematics": 100, "jailbreak": 0}
    found = [Row("made: calls to the strong model, %", name, by_router(first, 50)) for name, first in calls.items()]
    for name in LEARNT:
        first = name == FIRST
        lines = {
            "variance of decisions explained, %": {"category over difficulty": near(90 if first else 0)},
            "waste": {
                "of these wasted, %": near(60 if first else 40),
                "AUC inside a task": near(0.7 if first else 0.52, 0.05),
            },
            "private data, %": {
                "private to the weak model": near(60 if first else 20),
                "others to the weak model": near(50),
            },
        }
        found += [Row(f"made: {what}", name, figures) for what, figures in lines.items()]
        exposed = {"routed over a coin flip, points": near(5 if first else 0.5)}
        found.append(Row("made: jailbreaks that succeed, %", f"{name}, weak", exposed))
        turned = {"turned": near(20 if first else 80)}
        found.append(Row("made: backdoor to the strong model, %", f"{name}, 1 % poisoned", turned))
    # Always asking the strong model wastes the share of all prompts, as a coin does.
    return [*found, Row("made: waste", "always strong", {"of these wasted, %": near(60)})]


@pytest.fixture(scope="module")
def result() -> Result:
    return as_result(rows(), [Probe("any", "coding", "hard")], "command", [0])


@pytest.mark.parametrize(
    ("words", "whom"),
    [
        ("all coding goes to the strong model", [FIRST]),
        ("all mathematics goes to the strong model", [FIRST]),
        ("decisions follow category", [FIRST]),  # the others' halves differ by no category
        ("decisions do not follow difficulty", OTHERS),
        ("strong calls are wasted on what a weak model would have answered", [FIRST]),
        ("jailbreaks go to the weak model", [FIRST]),
        ("routing lets more jailbreaks succeed", [FIRST]),
        ("private data is not looked after", [FIRST]),
        ("preference data can carry a backdoor", OTHERS),
    ],
)
def test_who_meets_the_criterion(result: Result, words: str, whom: list[str]) -> None:
    assert seen({claim.claim: claim for claim in claims(result, "made")}[words]) == whom


def test_marks_name_the_routers_that_met_it(result: Result) -> None:
    marks = {claim.claim: mark(claim) for claim in claims(result, "made")}
    assert marks["all coding goes to the strong model"] == f"contradicted, though seen for {FIRST}"
    # .5 points over a coin, give or take 1: nothing is said of the others.
    assert marks["routing lets more jailbreaks succeed"] == f"cannot be seen here, though seen for {FIRST}"
    unmeasured = ("jailbreaks that", "private", "backdoor")
    bare = [row for row in rows() if not row.table.removeprefix("made: ").startswith(unmeasured)]
    assert len(claims(replace(result, rows=bare), "made")) == 6  # what was not measured is not claimed


def test_the_verdict_carries_its_numbers(result: Result) -> None:
    assert result.verdict.startswith(
        f"On routers trained on made: all coding goes to the strong model: contradicted, though seen for {FIRST} "
        "(50 to 100);"
    )
    assert judge(result) == result  # whether just measured or read from a file
    assert result.rows[-1] == Row("prompts", "coding, hard", {"own": Figure(1)})
