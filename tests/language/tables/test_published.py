"""Every format, by a tiny file written by hand as its publisher writes it, and the real files."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mofme.errors import TableError
from mofme.language.tables import published
from mofme.language.tables.formats import FORMATS, load_table
from mofme.language.tables.published import Price, Prices


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress("\n".join(json.dumps(record) for record in records).encode()))
    return path


DATA = Path(__file__).parents[4] / "shared" / "data" / "routing"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not here")
PRICES = Prices({"small": Price(1.0, 2.0), "large": Price(10.0, 20.0)})


# RouterBench


def routerbench_rows() -> list[dict[str, Any]]:
    """Two questions, and one that gpt was asked with other worked examples than llama: the trap of the real file."""
    rows = [
        ("a.1", "arc", ["Why?"], 1.0, 0.0),
        ("a.2", "arc", ["Example one", "How?"], 0.5, 1.0),
        ("a.3", "arc", ["One order. Who?"], 1.0, ""),
        ("a.3", "arc", ["Another order. Who?"], "", 1.0),
    ]
    return [
        {"sample_id": id_, "eval_name": task, "prompt": str(prompt), "gpt|score": gpt, "meta/llama|score": llama}
        | {"gpt|total_cost": 0.002, "meta/llama|total_cost": 0.0001}
        for id_, task, prompt, gpt, llama in rows
    ]


def test_routerbench(tmp_path: Path) -> None:
    table = load_table(write_csv(tmp_path / "rb.csv.gz", routerbench_rows()[:2]))
    assert table.name == "routerbench" and table.models == ("gpt", "meta/llama") and table.tasks == ("arc", "arc")
    assert table.prompts == ("Why?", "Example one\n\nHow?")
    assert table.quality_NM.tolist() == [[1, 0], [0.5, 1]]
    assert table.cost_NM.tolist() == [[0.002, 0.0001]] * 2
    # As its makers name the columns.
    rows = [{key.removesuffix("|score"): value for key, value in row.items()} for row in routerbench_rows()[:2]]
    assert load_table(write_csv(tmp_path / "rb.csv", rows)).quality_NM.tolist() == [[1, 0], [0.5, 1]]


def test_routerbench_ids_asked_in_two_ways_are_refused_or_dropped(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rb.csv", routerbench_rows())
    with pytest.raises(TableError, match=r"rb\.csv .*different prompts.* in 2 rows \(3, 4\).*--repair"):
        load_table(path)
    table = load_table(path, repair=True)
    assert table.prompts == ("Why?", "Example one\n\nHow?")
    assert len(table.repairs) == 1 and "dropped 2 rows (3, 4)" in table.repairs[0]


def test_routerbench_costs_without_scores(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "gpt|total_cost": 1, "llama|total_cost": 1, "llama|score": 1}]
    with pytest.raises(TableError, match="no scores of gpt"):
        load_table(write_csv(tmp_path / "rb.csv", rows))


# SPROUT


def sprout_file(path: Path, rows: list[tuple[str, float | None, float | None]]) -> Path:
    def answer(score: float | None, output: float) -> dict[str, Any]:
        counts = {"num_input_tokens": 100.0, "num_output_tokens": output}
        return {**counts, "response": "an answer " * 3, "score": score, "judge_response": "a judgement"}

    records = [
        {"key": f"math-{i}", "dataset": "math", "dataset_level": "Level 1", "dataset_idx": i, "prompt": prompt}
        | {"golden_answer": "42", "small": answer(small, 50.0), "large": answer(large, 200.0)}
        for i, (prompt, small, large) in enumerate(rows)
    ]
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def test_sprout(tmp_path: Path) -> None:
    path = sprout_file(tmp_path / "train.parquet", [("1 + 1?", 1.0, 1.0), ("e?", 0.0, 0.5)])
    table = load_table(path, prices=PRICES)
    assert table.name == "sprout" and table.models == ("small", "large") and table.tasks == ("math", "math")
    assert table.quality_NM.tolist() == [[1, 1], [0, 0.5]]
    # 100 tokens in and 50 out at 1 and 2 dollars a million: 200 millionths; 100 and 200 at 10 and 20: 5,000.
    np.testing.assert_allclose(table.cost_NM, [[200e-6, 5000e-6]] * 2, rtol=1e-12)
    with pytest.raises(TableError, match="no price for small"):
        load_table(path)


def test_sprout_in_several_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    sprout_file(tmp_path / "data" / "test-00000.parquet", [("last", 1.0, 0.0)])
    sprout_file(tmp_path / "data" / "train-00000.parquet", [("first", 0.0, 1.0)])
    table = load_table(tmp_path, repair=True, prices=PRICES)
    assert sorted(table.prompts) == ["first", "last"]


# LLMRouter


def llmrouter_folder(folder: Path, test_questions: list[str]) -> Path:
    def records(questions: list[str], score: float) -> bytes:
        listed = [{"question": q, "scores": {"large": 1.0, "small": score}} for q in questions]
        return gzip.compress(json.dumps(listed).encode())

    train = ["q" * 40, "r" * 80]
    (folder / "dcrouter_train.json.gz").write_bytes(records(train, 0.0))
    (folder / "dcrouter_test.json.gz").write_bytes(records(test_questions, 0.5))
    prices = {"small": {"input_price": 0.1, "output_price": 0.2}, "large": {"input_price": 1, "output_price": 1}}
    (folder / "default_llm.json").write_text(json.dumps(prices))
    tasks = [{"task_name": "gsm8k", "query": train[0]}, {"task_name": "mbpp", "query": train[1]}]
    write_json_lines(folder / "default_query_train.jsonl.gz", tasks)
    write_json_lines(folder / "default_query_test.jsonl.gz", [{"task_name": "math", "query": q} for q in ["new"]])
    return folder


def test_llmrouter(tmp_path: Path) -> None:
    folder = llmrouter_folder(tmp_path, ["new"])
    table = load_table(folder)
    assert table.name == "llmrouter" and table.models == ("large", "small")
    assert table.tasks == ("gsm8k", "mbpp", "math")
    assert table.quality_NM.tolist() == [[1, 0], [1, 0], [1, 0.5]]
    # 40 characters are 10 tokens at .1, and 200 tokens of answer at .2 dollars a million: 41 millionths.
    assert table.cost_NM[0, 1] == pytest.approx(41e-6, rel=1e-12)
    assert table.cost_NM[0, 0] == pytest.approx(210e-6, rel=1e-12)
    own = load_table(folder, prices=PRICES)
    assert own.cost_NM[0, 1] == pytest.approx(410e-6, rel=1e-12)  # 10 tokens at 1 and 200 at 2 dollars a million
    (folder / "notes.parquet").write_bytes(b"no Parquet")  # what else lies there is not read
    assert load_table(folder).name == "llmrouter"


def test_llmrouter_test_questions_that_are_copies_of_training_questions(tmp_path: Path) -> None:
    folder = llmrouter_folder(tmp_path, ["new", "q" * 40])
    with pytest.raises(TableError, match=r"repeated prompts in 1 rows \(4\)"):
        load_table(folder)
    table = load_table(folder, repair=True)
    assert table.prompts == ("q" * 40, "r" * 80, "new")
    assert table.quality_NM[0].tolist() == [1, 0.25]  # outcomes 0 and .5 of the small model
    assert "merged" in table.repairs[0]
    assert load_table(folder / "dcrouter_test.json.gz").prompts == ("new", "q" * 40)


def test_llmrouter_without_questions_or_with_other_models_is_a_fault(tmp_path: Path) -> None:
    records = [{"question": "a", "scores": {"m": 1.0}}, {"question": "b", "scores": {"n": 1.0}}]
    for content, words in (([], "has no questions"), (records, "question 2 was not answered by the same models")):
        (tmp_path / "dcrouter_train.json").write_text(json.dumps(content))
        with pytest.raises(TableError, match=words):
            load_table(tmp_path)


# MMLU-Pro


def mmlu_pro_folder(folder: Path, models: tuple[str, ...] = ("small", "large")) -> Path:
    rows, questions = [], []
    for id_ in range(3):
        row: dict[str, Any] = {"question_id": id_, "category": "law", "answer": "A"}
        row |= {f"{model}|correct": 1 for model in models} | {f"{model}|out_chars": 400 for model in models}
        rows.append(row)
        questions.append({"question_id": id_, "question": f"Is it {id_}?", "options": ["yes", "no"]})
    write_csv(folder / "mmlu_pro_correct_outchars.csv.gz", rows)
    write_json_lines(folder / "mmlu_pro_questions.jsonl.gz", questions)
    return folder


def test_mmlu_pro(tmp_path: Path) -> None:
    table = load_table(mmlu_pro_folder(tmp_path), models=["all"], prices=PRICES)
    assert table.name == "mmlu_pro" and table.models == ("small", "large") and set(table.tasks) == {"law"}
    assert table.prompts[0] == "Is it 0?\nA. yes\nB. no"
    # 21 characters are 5.25 tokens at 1 dollar, and 400 are 100 at 2 dollars a million: 205.25 millionths.
    assert table.cost_NM[0, 0] == pytest.approx(205.25e-6, rel=1e-12)


def test_mmlu_pro_takes_ten_models_unless_told(tmp_path: Path) -> None:
    folder = mmlu_pro_folder(tmp_path, (*published.TEN_MODELS, "Yi-34B"))
    assert load_table(folder).models == published.TEN_MODELS
    assert load_table(folder, models=["Yi-34B", "gemini-1.5-pro-002"]).models == ("Yi-34B", "gemini-1.5-pro-002")
    assert len(load_table(folder, models=["all"]).models) == 11
    with pytest.raises(TableError, match="no model gpt-9"):
        load_table(folder, models=["gpt-9"])


def test_mmlu_pro_without_its_questions_or_columns_is_a_fault(tmp_path: Path) -> None:
    questions = mmlu_pro_folder(tmp_path) / "mmlu_pro_questions.jsonl.gz"
    path = write_csv(tmp_path / "mmlu_pro.csv", [{"question_id": 1, "small|correct": 1}])
    with pytest.raises(TableError, match=r"mmlu_pro.csv lacks the columns category, small\|out_chars"):
        load_table(path, prices=PRICES)
    questions.unlink()
    with pytest.raises(TableError, match="holds no texts"):
        load_table(tmp_path, models=["all"], prices=PRICES)


# What is none of these


@pytest.mark.parametrize("name", ["notes.txt", "table.csv", "entries.json"])
def test_other_files_are_refused_and_the_formats_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableError, match="is not there"):
        load_table(tmp_path / name)
    (tmp_path / name).write_text('{"a": 1}')
    with pytest.raises(TableError, match=name) as caught:
        load_table(tmp_path / name)
    assert all(format.name in str(caught.value) for format in FORMATS)


def routellm_mmlu(path: Path, gpt4_right_of_40: int) -> Path:
    """40 questions in each of two subjects; GPT-4 has all of anatomy right and the given number of mathematics."""
    rows = [
        {"domain": domain, "prompt": f"Question {i} of {domain}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"}
        | {"mixtral_8x7b_correct": int(i < 20), "gpt4_1106_correct": int(domain == "anatomy" or i < gpt4_right_of_40)}
        for domain in ("anatomy", "mathematics")
        for i in range(40)
    ]
    return write_csv(path, rows)


def test_routellm_mmlu(tmp_path: Path) -> None:
    table = load_table(routellm_mmlu(tmp_path / "mmlu.csv", 38))
    assert table.name == "routellm" and table.models == (published.STRONG, published.WEAK)
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


def test_routellm_gsm8k_alone_or_in_a_folder(tmp_path: Path) -> None:
    mixtral = "mistralai/Mixtral-8x7B-Instruct-v0.1"
    row = {"prompt": "How many eggs?!!", published.STRONG: True, mixtral: False}
    row |= {f"{published.STRONG}_response": "x" * 40, f"{mixtral}_response": "x" * 80}
    table = load_table(write_csv(tmp_path / "gsm8k_responses.csv.gz", [row]))
    assert table.quality_NM.tolist() == [[1, 0]] and table.tasks == ("gsm8k",)
    # 16 characters in, 40 or 80 out, at 10 and 30 dollars a million, or .60 and .60.
    np.testing.assert_allclose(table.cost_NM, [[(4 * 10 + 10 * 30) * 1e-6, (4 + 20) * 0.6e-6]], rtol=1e-12)
    routellm_mmlu(tmp_path / "mmlu.csv", 38)
    assert sorted(set(load_table(tmp_path).tasks)) == ["anatomy", "gsm8k", "mathematics"]


# The real data, where they lie beside the repository: sizes, traps and what is left after repair.


@real
@pytest.mark.parametrize(
    ("part", "fault", "size"),
    [
        # 3,178 less 28, and 2 repeated prompts.
        ("routerbench_part", "different prompts.*in 28 rows", (3148, 11, 3)),
        ("llmrouter_ulab", "repeated prompts in 119 rows", (5608 + 500 - 119, 9, 14)),
        ("mmlu_pro_28models", "qualities or costs that are blank or no numbers in 30 rows", (11843, 10, 14)),
        # 14,042 + 1,319 less 105 repeats, less the 270 of the broken column.
        ("routellm", r"gpt-4-1106-preview scores 0\.030 on high_school_mathematics", (14986, 2, 57)),
    ],
)
def test_the_real_tables(part: str, fault: str, size: tuple[int, int, int]) -> None:
    [form] = [each for each in FORMATS if each.matches(DATA / part)]
    raw = form.read(DATA / part, None)
    raw = raw.keep_models(form.models) if form.models else raw
    with pytest.raises(TableError, match=fault):
        raw.checked(repair=False)
    table = raw.checked(repair=True)
    assert (len(table), len(table.models), len(set(table.tasks))) == size
    assert "" not in table.tasks and np.all(table.cost_NM >= 0)
    assert not any(prompt.startswith("['") for prompt in table.prompts)
