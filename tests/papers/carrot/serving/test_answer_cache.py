import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofme.papers.carrot.serving.answer_cache import _FIXED, LARGEST_ANSWER, AnswerCache, Kept, Key
from mofme.papers.carrot.serving.chat import Tokens
from mofme.papers.carrot.serving.config import CacheSettings
from tests.papers.carrot.serving.fake_backend import FakeBackend

NORTH, NEAR, EAST = np.array([1.0, 0.0]), np.array([0.99, np.sqrt(1 - 0.99**2)]), np.array([0.0, 1.0])


def kept(text: str) -> Kept:
    return Kept("weak", text.encode(), Tokens(1, 1))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def cache(clock=None, **settings) -> AnswerCache:
    return AnswerCache(CacheSettings(enabled=True, **settings), clock or Clock())


def test_near_is_near_enough_from_the_similarity_on() -> None:
    known = cache(similarity=0.98)
    known.keep(("frame", "how are you"), NORTH, kept("fine"))
    assert known.nearest(("frame", "how do you do"), NEAR) == kept("fine")
    assert known.nearest(("frame", "where is it"), EAST) is None
    assert known.nearest(("another frame", "how do you do"), NEAR) is None
    known.keep(("frame", "large"), None, kept("x" * (LARGEST_ANSWER + 1)))
    assert len(known) == 1


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        ("what is 12 + 5", "what is 12 + 6"),
        ("what is 12 + 5", "what is 12 - 5"),
        ("is 3 above 5", "is 5 above 3"),
        ("should I go", "should I not go"),
        ("should I go", "shouldn't I go"),
        ("from German to French", "from French to German"),
        ("costs 1.5 dollars", "costs 15 dollars"),
        ("is anna taller than ben?", "is ben taller than anna?"),
        ("wie hoch ist der Ätna?", "wie hoch ist der Örtler?"),
        ("\u732b\u559c\u6b22\u5403\u4ec0\u4e48?", "\u72d7\u559c\u6b22\u5403\u4ec0\u4e48?"),  # cats, dogs
    ],
)
def test_numbers_names_signs_and_negations_must_agree(asked, known) -> None:
    answers = cache()
    answers.keep(("frame", known), NORTH, kept("no"))
    assert answers.nearest(("frame", asked), NORTH) is None


def test_long_texts_and_worked_examples_are_not_compared() -> None:
    known = cache()
    assert known.compares("short?")
    assert not known.compares("long " * 200)  # the encoder sees their beginning only
    assert not known.compares("Q: 1\nA: 2\n\nQ: 2\nA: 3\n\nQ: 3\nA:")  # and of these the last question only
    assert not cache(similarity=1).compares("short?")


class PlainLoop:
    """The rule of the cache, as a loop over all that is kept: [key, embedding or None, answer, expiry]."""

    def __init__(self, size: int, ttl: float, similarity: float, clock: Clock) -> None:
        self.size, self.ttl, self.similarity, self.clock = size, ttl, similarity, clock
        self.rows: list[list] = []

    def same(self, key: Key) -> Kept | None:
        for row in [row for row in self.rows if row[0] == key]:
            self.rows.remove(row)
            if row[3] > self.clock():
                self.rows.append(row)
                return row[2]
        return None

    def nearest(self, key: Key, embedding_D: np.ndarray) -> Kept | None:
        best, found = self.similarity, None
        for other, other_D, _, _ in self.rows:
            comparable = other[0] == key[0] and other_D is not None
            if (
                comparable
                and _FIXED.findall(other[1]) == _FIXED.findall(key[1])
                and float(other_D @ embedding_D) >= best
            ):
                best, found = float(other_D @ embedding_D), other
        return None if found is None else self.same(found)

    def keep(self, key: Key, embedding_D: np.ndarray | None, answer: Kept) -> None:
        self.rows = [row for row in self.rows if row[0] != key]
        self.rows.append([key, embedding_D, answer, self.clock() + self.ttl])
        self.rows = self.rows[-self.size :]


ASKED = ["how is it", "how was it", "how is 5", "how was 5", "how is 6", "is it not", "is 5 + 6", "ask Ann", "an Ann"]
ANGLES = {text: 0.06 * number + 0.001 * number**2 for number, text in enumerate(ASKED)}  # no two are equally far apart
STEPS = st.tuples(
    st.sampled_from(["keep", "keep unread", "same", "nearest", "wait"]), st.sampled_from("fg"), st.sampled_from(ASKED)
)


@given(st.lists(STEPS, max_size=60), st.integers(1, 6))
def test_the_index_finds_what_a_loop_over_everything_finds(steps: list[tuple[str, str, str]], size: int) -> None:
    clock = Clock()
    indexed = cache(clock, size=size, ttl=5, similarity=0.95)
    plain = PlainLoop(size, 5, 0.95, clock)
    for number, (what, frame, text) in enumerate(steps):
        key, embedding_D = (frame, text), np.array([np.cos(ANGLES[text]), np.sin(ANGLES[text])])
        if what == "wait":
            clock.now += 2
        elif what == "same":
            assert indexed.same(key) == plain.same(key)
        elif what == "nearest":
            assert indexed.nearest(key, embedding_D) == plain.nearest(key, embedding_D)
        else:
            for each in (indexed, plain):
                each.keep(key, embedding_D if what == "keep" else None, kept(f"answer {number}"))
        assert len(indexed) == len(plain.rows)


def embed(text: str) -> np.ndarray:
    return EAST if "other" in text else NEAR if "please" in text else NORTH


ON = {"cache": {"enabled": True, "similarity": 0.98}}


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_that_comes_again_costs_nothing(start, stream) -> None:
    endpoint = start(embed=embed, **ON)
    said, words, costs = [], [], []
    for text in ("the question", "the question", "please the question", "some other question"):
        raw = endpoint.ask_raw(text, stream=stream)
        words.append(raw.headers["x-mofme-cache"])
        costs.append(raw.headers.get("x-mofme-cost"))
        if stream:
            with raw.parse() as chunks:
                said.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
        else:
            said.append(raw.parse().choices[0].message.content)
    assert words == ["miss", "hit", "hit", "miss"]
    assert said == ["the question"] * 3 + ["some other question"]
    assert sum(endpoint.backends["weak"].asked.values()) == 2
    assert costs == ([None] * 4 if stream else ["0.000014000", "0.000000000", "0.000000000", "0.000016000"])
    metrics = endpoint.metrics()
    assert (metrics["mofme_cache_hits_total"], metrics["mofme_cache_misses_total"]) == (2, 2)
    assert metrics['mofme_requests_total{outcome="cached"}'] == 2
    # Answered by weak for 14 and 16 millionths, twice for nothing; by strong 140, 160 and twice 140.
    assert metrics["mofme_saved_dollars"] == pytest.approx(550e-6)


def test_another_request_is_another_question_and_who_asks_for_dice_gets_them(start) -> None:
    endpoint = start(embed=embed, **ON)

    def word(**settings) -> str:
        raw = endpoint.ask_raw("the question", **settings)
        raw.http_response.read()
        return raw.headers["x-mofme-cache"]

    others = ({"max_tokens": 5}, {"seed": 1}, {"model": "weak"}, {"user": "another"}, {"stop": "x"}, {"stream": True})
    assert word() == "miss" and word() == "hit"
    assert [word(**other) for other in others] == ["miss"] * len(others)
    assert [word(temperature=0.7), word(temperature=0.7), word(n=2)] == ["skipped"] * 3
    before = {name: [{"role": "system", "content": name}, {"role": "user", "content": "the question"}] for name in "ab"}
    assert [word(messages=before[name]) for name in "aba"] == ["miss", "miss", "hit"]


def test_broken_streams_and_errors_are_not_kept(start) -> None:
    weak = FakeBackend(break_after=2)
    endpoint = start({"weak": weak}, embed=embed, **ON)
    with pytest.raises(Exception, match="broke off"):
        endpoint.said("the question")
    weak.break_after, weak.status = None, 400
    with pytest.raises(Exception, match="400"):
        endpoint.ask("the question")
    weak.status = 200
    assert endpoint.ask_raw("the question").headers["x-mofme-cache"] == "miss"
    assert endpoint.said("the question") == "the question"


def test_an_encoder_that_fails_leaves_the_same_words(start) -> None:
    def stumble(text: str) -> np.ndarray:
        raise RuntimeError("no")

    endpoint = start(embed=stumble, **ON)
    assert [endpoint.ask_raw("the question").headers["x-mofme-cache"] for _ in range(2)] == ["miss", "hit"]
