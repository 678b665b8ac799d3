"""What is said of measured policies: beside the paper, and beside linear ones."""

from mofme.control.comparison import Measured, as_result
from mofme.control.evaluation import Evaluation


def _measured(environment: str, experts: int, seed: int, steps: int, earned: float) -> Measured:
    evaluation = Evaluation((earned, earned), (10, 10), (1 / experts,) * experts)
    return Measured(environment, experts, seed, steps, evaluation, [])


def test_a_robot_that_earns_less_than_a_linear_policy_is_named() -> None:
    result = as_result(
        [
            _measured("Hopper", 8, 0, 3000, 2112.0),
            _measured("Hopper", 8, 1, 2000, 1690.0),
            _measured("Hopper", 1, 0, 2000, 1900.0),
            _measured("Swimmer", 8, 0, 2000, 40.0),
            _measured("Swimmer", 1, 0, 1000, 44.0),
            _measured("Swimmer", 1, 1, 1500, 46.0),
            _measured("Ant", 8, 0, 2000, 649.0),
        ],
        "a command",
    )
    figures = {row.name: row.figures for row in result.rows}
    # (2112 + 1690) / 2 = 1901 of 2816.
    assert figures["Hopper"]["return"].value == 1901
    assert round(figures["Hopper"]["reached, %"].value, 1) == 67.5
    assert figures["Swimmer"]["linear policy"].value == 45
    assert figures["Swimmer"]["its steps"].value == 1500 and figures["Swimmer"]["its seeds"].value == 2
    assert "linear policy" not in figures["Ant"]
    assert "earns less than it in 1 of 2 (Swimmer)" in result.verdict
    assert "at least 70 % in 1 of 6 robots" in result.verdict
