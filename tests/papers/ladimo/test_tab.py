"""The tab "Dense to MoE": its parts, its endpoint, and a person's way through it, all with a tiny random model."""

import copy
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import Page, expect

from mofme.core.moe import parameters
from mofme.errors import Cancelled, ModelError, MofmeError, TableError
from mofme.language.pretrained import PretrainedLM
from mofme.language.scoring import score_text
from mofme.language.text import Question
from mofme.papers.ladimo import tab as dense_to_moe
from mofme.papers.ladimo import tab_live
from mofme.papers.ladimo.converted_layer import Policy
from mofme.papers.ladimo.tab import CONTROLS, PRUNED, RANDOM
from mofme.papers.ladimo.tab_live import DENSE, OURS, UNIFORM, Converted, Written
from mofme.ui.models import Engine, Services
from mofme.ui.runs import Job
from mofme.ui.uploads import read_own_text
from tests.language.conftest import make_tiny_pretrained
from tests.ui.one_tab import one_tab

TEXT = "The moon, methinks, looks with a watery eye.\n" * 40
QUESTIONS = [Question("Is it?\nAnswer:", ("yes", "no"), 0), Question("Was it?\nAnswer:", ("yes", "no"), 1)]


@pytest.fixture(scope="module")
def lm() -> PretrainedLM:
    return make_tiny_pretrained()


def run(lm: PretrainedLM, job: Job, questions: Sequence[Question] = ()) -> Converted:
    recipe = tab_live.recipe_for(lm.model, 4, 1 / 3, 1024, "co-activation")
    return tab_live.convert_live(lm, lm.tokens(TEXT), "moon.txt", questions, recipe, 0.2, CONTROLS, job)


@pytest.fixture(scope="module")
def told() -> list[tuple[float, str]]:
    return []


@pytest.fixture(scope="module")
def converted(lm: PretrainedLM, told: list[tuple[float, str]]) -> Converted:
    return run(lm, Job(600, lambda done, words: told.append((done, words))), QUESTIONS)


def test_all_models_meet_the_target_but_the_dense_one(converted: Converted) -> None:
    assert [arm.name for arm in converted.arms] == [DENSE, OURS, UNIFORM, RANDOM, PRUNED]
    assert converted.arms[0].activated == converted.parameters
    for arm in converted.arms[1:]:
        # Policies are chosen on other tokens than these, so that the target is met about.
        assert arm.activated == pytest.approx(0.8 * converted.parameters, rel=0.05), arm.name


def test_what_is_shown_is_the_model_that_is_handed_on_and_the_dense_one_stays(
    converted: Converted, lm: PretrainedLM
) -> None:
    again = score_text(converted.lm.model, tab_live.divide(lm.tokens(TEXT), "moon.txt")[1])
    assert again.perplexity == pytest.approx(converted.arms[1].text.perplexity)
    policies = [layer.mlp.router.policy for layer in converted.lm.model.model.layers]
    assert policies == [candidate.policy for candidate in converted.conversion.chosen]
    ids = torch.tensor([lm.tokens("The moon")])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, make_tiny_pretrained().model(ids).logits)


def test_every_layer_of_every_conversion_is_told(converted: Converted, told: list[tuple[float, str]]) -> None:
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1
    words = [words for _, words in told]
    for start in (OURS, RANDOM, PRUNED):
        assert [f"{start[:1].upper()}{start[1:]}: layer {number} of 3" in words for number in (1, 2, 3)] == [True] * 3


def test_experts_are_counted_as_they_take_part(converted: Converted) -> None:
    assert converted.use_LE.shape == (3, 4)
    idle = (4 - converted.use_LE.sum(-1)).sum()
    # An expert holds (48 - 16) / 4 = 8 neurons of three vectors of 16.
    assert converted.arms[1].activated == pytest.approx(parameters(converted.lm.model) - idle * 8 * 3 * 16)


def test_shared_neurons_leave_equal_experts(lm: PretrainedLM) -> None:
    # Of 48 neurons half are 24; 24 / 16 experts = 1.5, rounded to even 2: 48 - 32 = 16 are left to share.
    for shared, experts, neurons in ((0.0, 4, 0), (1 / 3, 4, 16), (0.5, 16, 16)):
        assert tab_live.recipe_for(lm.model, experts, shared, 1024, "activation").shared == neurons


def test_converting_stops_at_the_next_layer_when_asked(lm: PretrainedLM) -> None:
    seen: list[str] = []

    def told(_: float, words: str) -> None:
        seen.append(words)
        if "layer 2" in words:
            job.cancel()

    job = Job(600, told)
    with pytest.raises(Cancelled):
        run(lm, job)
    assert "layer 2" in seen[-1]


def test_what_is_measured_is_not_learned_from() -> None:
    learned, measured = tab_live.divide(range(1000), "")
    assert (learned[-1], measured[0], len(measured)) == (799, 800, 200)
    assert len(tab_live.divide(range(100_000), "")[1]) == 2048
    for count in (10, 600):
        with pytest.raises(TableError, match=f"moon.txt has {count} tokens.* 640 are needed"):
            tab_live.divide(range(count), "moon.txt")


def test_texts_are_read_or_refused_in_words(tmp_path: Path) -> None:
    assert len(read_own_text(None)) > 90_000  # the shipped one holds enough for the slider
    path = tmp_path / "own.txt"
    for content, words in ((b"\xff\xfe\x00", "UTF-8"), (b" \n", "empty")):
        path.write_bytes(content)
        with pytest.raises(TableError, match=f"own.txt.*{words}"):
            read_own_text(path)


def test_a_conversion_is_shown_and_told_to_programs(converted: Converted) -> None:
    page = dense_to_moe.summary_html(converted) + dense_to_moe.converted_html(converted)
    arms = [DENSE, OURS, UNIFORM, RANDOM, PRUNED]
    assert re.findall(r"<tr><td>([^<]+)</td>", page) == [*arms, "Layer 1", "Layer 2", "Layer 3"]
    assert [page.count(part) for part in ("% fewer</b>", "class='bar'", "<circle", "Right answers")] == [1, 3, 5, 1]
    values = json.loads(json.dumps(dense_to_moe.converted_values(converted)))
    assert list(values["models"]) == arms
    assert values["models"][OURS]["perplexity"]["value"] == pytest.approx(converted.arms[1].text.perplexity)
    assert [layer["active_experts"] for layer in values["layers"]] == pytest.approx(converted.use_LE.sum(-1).tolist())
    assert 0 <= values["models"][DENSE]["accuracy"]["value"] <= 1


def test_policies_are_named() -> None:
    policies = (Policy("dense"), Policy("top-k", 6.0), Policy("threshold", 0.0612))
    assert [dense_to_moe.policy_words(policy) for policy in policies] == ["all", "best 6", "≥ 6.1 %"]


def test_writing_takes_the_likeliest_token_each_time(lm: PretrainedLM, converted: Converted) -> None:
    written = tab_live.write(lm, "The moon", tokens=5)
    ids = lm.tokens("The moon")
    for _ in range(5):
        with torch.no_grad():
            ids.append(int(lm.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert written.text == lm.tokenizer.decode(ids[8:])
    assert written.used == 1 and written.speed > 0
    assert 0.5 < tab_live.write(converted.lm, "The moon", tokens=5).used < 1


def test_a_beginning_must_be_there_and_short(lm: PretrainedLM) -> None:
    for prompt, words in (("", "Type how"), ("a" * 2001, "limit of 2,000")):
        with pytest.raises(MofmeError, match=words):
            tab_live.write(lm, prompt)


def test_what_is_written_is_shown_as_text_and_so_is_that_nothing_is(lm: PretrainedLM) -> None:
    page = dense_to_moe.written_html("Dense", "<i>", Written("<b>", 12.34, 0.8))
    assert "&lt;i&gt;<b>&lt;b&gt;</b>" in page and "12.3 tokens a second, 80 %" in page
    with torch.no_grad():
        likeliest = int(lm.model(torch.tensor([lm.tokens("The moon")])).logits[0, -1].argmax())
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(likeliest)
    only = tab_live.write(replace(lm, tokenizer=tokenizer), "The moon")
    assert not only.text and "adds nothing" in dense_to_moe.written_html("Dense", "The moon", only)


def test_only_the_newest_models_are_kept(converted: Converted) -> None:
    newest = deque([(2, converted)])
    assert dense_to_moe.kept_of(newest, 2) is converted
    for key, words in ((1, "convert again"), (None, "Convert the model first")):
        with pytest.raises(ModelError, match=words):
            dense_to_moe.kept_of(newest, key)


@pytest.fixture(scope="module")
def address(folders: None, lm: PretrainedLM) -> Iterator[str]:
    """Address of an app with this tab alone."""
    services = Services(Engine([]), language_model=lambda: lm)
    with one_tab(lambda: dense_to_moe.build(services)) as address:
        yield address


def test_programs_convert_a_text_of_their_own(address: str, tmp_path: Path) -> None:
    path = tmp_path / "moon.txt"
    path.write_text(TEXT, encoding="utf-8")
    client = Client(address, verbose=False)
    answer = client.predict(
        *(20, 4, "a third", 1024, handle_file(path), [PRUNED], None, "by which neurons fire together", 0),
        api_name="/dense_to_moe",
    )
    assert list(answer["models"]) == [DENSE, OURS, UNIFORM, PRUNED]
    assert answer["learned_tokens"] == 1024
    assert len(answer["layers"]) == 3
    # A quarter of the tiny model's parameters stay in half of its neurons, more than 40 % cannot be saved.
    with pytest.raises(AppError, match="choose another target"):
        client.predict(*(40, 4, "half", 1024, None, [], None, "by how strongly they fire", 0), api_name="/dense_to_moe")
    client.close()


def test_a_person_converts_and_lets_both_write(visit: Callable[..., Page], address: str, tmp_path: Path) -> None:
    path = tmp_path / "moon.txt"
    path.write_text(TEXT, encoding="utf-8")
    page = visit(address)
    page.click("#write")
    expect(page.get_by_text("Convert the model first")).to_be_visible()
    page.get_by_role("radio", name="4", exact=True).check()
    page.get_by_role("radio", name="a third").check()
    page.set_input_files("#own-text input[type=file]", path)
    expect(page.locator("#own-text a[href*='moon.txt']")).to_be_visible()
    page.click("#convert")
    expect(page.locator("#conversion").get_by_text("Done: an average token")).to_be_visible()
    expect(page.locator("#converted .bar")).to_have_count(3)
    page.click("#write")
    for side in ("#by-dense", "#by-converted"):
        expect(page.locator(side).get_by_text("tokens a second")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
