"""RouteLLM's tables, by tiny files written by hand as it publishes them."""

from pathlib import Path

import numpy as np
import pytest

from mofme.errors import TableError
from mofme.language.llm_routing.loaders import load_table, routellm
from tests.language.llm_routing.loaders.published_files import write_csv, write_json_lines


def routellm_mmlu(path: Path, gpt4_right_of_40: int) -> Path:
    """40 questions in each of two subjects; GPT-4 has all of anatomy right and the given number of mathematics."""
    return write_csv(
        path,
        [
            {
                "domain": domain,
                "prompt": f"Question {i} of {domain}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:",
                "mixtral_8x7b_correct": int(i < 20),
                "gpt4_1106_correct": int(domain == "anatomy" or i < gpt4_right_of_40),
            }
            for domain in ("anatomy", "mathematics")
            for i in range(40)
        ],
    )


def test_routellm_mmlu(tmp_path: Path) -> None:
    table = load_table(routellm_mmlu(tmp_path / "mmlu.csv", 38))
    assert table.name == "routellm" and table.models == (routellm.STRONG, routellm.WEAK)
    np.testing.assert_allclose(table.quality_NM.mean(0), [78 / 80, 0.5])
    # 50 characters and 2 tokens of answer at 10 and 30 dollars a million.
    assert len(table.prompts[0]) == 50
    assert table.cost_NM[0, 0] == pytest.approx((50 / 4 * 10 + 2 * 30) * 1e-6, rel=1e-12)


def test_routellm_a_subject_below_chance_is_refused_or_dropped(tmp_path: Path) -> None:
    path = routellm_mmlu(tmp_path / "mmlu.csv", 0)
    with pytest.raises(TableError, match=r"gpt-4-1106-preview scores 0\.000 on mathematics, where guessing .* 0\.250"):
        load_table(path)
    table = load_table(path, repair=True)
    assert set(table.tasks) == {"anatomy"} and len(table) == 40
    assert "dropped 40 rows of mathematics" in table.repairs[0]


def test_routellm_a_weak_column_within_chance_is_kept(tmp_path: Path) -> None:
    assert len(load_table(routellm_mmlu(tmp_path / "mmlu.csv", 7))) == 80  # 7 of 40, where guessing gives 10


def test_routellm_gsm8k(tmp_path: Path) -> None:
    mixtral = "mistralai/Mixtral-8x7B-Instruct-v0.1"
    row = {"prompt": "How many eggs?!!", routellm.STRONG: True, mixtral: False}
    row |= {f"{routellm.STRONG}_response": "x" * 40, f"{mixtral}_response": "x" * 80}
    table = load_table(write_csv(tmp_path / "gsm8k_responses.csv.gz", [row]))
    assert table.quality_NM.tolist() == [[1, 0]] and table.tasks == ("gsm8k",)
    # 16 characters in, 40 or 80 out, at 10 and 30 dollars a million, or .60 and .60.
    np.testing.assert_allclose(table.cost_NM, [[(4 * 10 + 10 * 30) * 1e-6, (4 + 20) * 0.6e-6]], rtol=1e-12)


def test_routellm_mt_bench_counts_first_turns(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "mt_bench_question.jsonl.gz", [{"question_id": 7, "turns": ["Write.", "Again."]}])
    said = "[The Start of Assistant's Answer]\n" + "x" * 40 + "\n[The End of Assistant's Answer]"
    write_json_lines(
        tmp_path / "mt_bench_judgements.jsonl.gz",
        [
            {"question_id": 7, "model": model, "turn": turn, "score": score, "user_prompt": said}
            for model, turn, score in [
                (routellm.STRONG, 1, 10),
                (routellm.STRONG, 2, 1),
                ("mistralai/Mixtral-8x7B-Instruct-v0.1", 1, 5.5),
            ]
        ],
    )
    table = load_table(tmp_path)
    assert table.prompts == ("Write.",) and table.quality_NM.tolist() == [[1, 0.5]]
    assert table.cost_NM[0, 0] == pytest.approx((1.5 * 10 + 10 * 30) * 1e-6, rel=1e-12)


def test_routellm_a_folder_holds_all_of_it(tmp_path: Path) -> None:
    routellm_mmlu(tmp_path / "mmlu.csv", 38)
    mixtral = "mistralai/Mixtral-8x7B-Instruct-v0.1"
    row = {"prompt": "Eggs?", routellm.STRONG: True, mixtral: False}
    write_csv(tmp_path / "gsm8k.csv", [row | {f"{routellm.STRONG}_response": "x", f"{mixtral}_response": "x"}])
    assert sorted(set(load_table(tmp_path).tasks)) == ["anatomy", "gsm8k", "mathematics"]
