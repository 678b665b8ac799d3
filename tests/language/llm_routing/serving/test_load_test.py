import numpy as np

from mofme.language.llm_routing.serving.load_test import (
    DrawingRouter,
    Overhead,
    Storm,
    as_result,
    measure_overhead,
    measure_storm,
)


def test_a_small_storm_loses_nothing() -> None:
    storm = measure_storm(8, 40, DrawingRouter())
    assert (storm.lost, storm.duplicated) == (0, 0)
    assert storm.fallbacks > 0
    assert len(storm.latencies) == 40


def test_overhead_is_of_every_request() -> None:
    overhead = measure_overhead(3, DrawingRouter())
    assert len(overhead.direct) == len(overhead.through) == 3
    assert (overhead.cpu_through > 0).all()


def test_the_result_says_what_was_measured() -> None:
    direct, through = np.full(20, 0.001), np.full(20, 0.004)
    storm = Storm(50, 500, 1, 2, 30, 10.0, np.full(500, 0.2))
    result = as_result({"here": Overhead(direct, through, direct, through)}, {"here": storm}, "command")
    assert "Of 500 requests of 50 clients at once, 1 were lost and 2 doubled" in result.verdict
    alone, many = result.rows
    assert alone.figures["added by the endpoint, ms"].value == 3.0
    assert many.figures["requests per second"].value == 50.0
