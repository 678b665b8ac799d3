"""The real data, where it lies beside the repository: sizes, traps and what is left after repair."""

from pathlib import Path

import numpy as np
import pytest

from mofme.errors import TableError
from mofme.language.llm_routing.loaders import load_table
from mofme.language.llm_routing.prices import Prices

DATA = Path(__file__).parents[5] / "shared" / "data" / "routing"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not here")


def test_routerbench() -> None:
    with pytest.raises(TableError, match=r"different prompts.*in 28 rows"):
        load_table(DATA / "routerbench_part")
    table = load_table(DATA / "routerbench_part", repair=True)
    assert (len(table), len(table.models)) == (3148, 11)  # 3,178 less 28, and 2 repeated prompts
    assert set(table.tasks) == {"arc-challenge", "mbpp", "winogrande"}
    assert not any(prompt.startswith("['") for prompt in table.prompts)
    gpt4 = table.keep_models(["gpt-4-1106-preview"])
    assert gpt4.cost_NM.mean() == pytest.approx(0.005, abs=1e-4)


def test_llmrouter() -> None:
    assert len(load_table(DATA / "llmrouter_ulab" / "dcrouter_train.json.gz")) == 5608
    with pytest.raises(TableError, match="repeated prompts in 119 rows"):
        load_table(DATA / "llmrouter_ulab")
    table = load_table(DATA / "llmrouter_ulab", repair=True)
    assert (len(table), len(table.models), len(set(table.tasks))) == (5608 + 500 - 119, 9, 14)
    assert "" not in table.tasks


def test_mmlu_pro() -> None:
    with pytest.raises(TableError, match="blank qualities or costs in 30 rows"):
        load_table(DATA / "mmlu_pro_28models")
    table = load_table(DATA / "mmlu_pro_28models", repair=True)
    assert (len(table), len(table.models), len(set(table.tasks))) == (11843, 10, 14)
    prices = Prices.load()
    assert len({prices.models[model] for model in table.models}) == 10
    everything = load_table(DATA / "mmlu_pro_28models", repair=True, models=["all"])
    assert (len(everything), len(everything.models)) == (11843, 28)
    assert "DeepSeek-Coder-V2" in everything.repairs[0]


def test_routellm() -> None:
    with pytest.raises(TableError, match=r"gpt-4-1106-preview scores 0\.030 on high_school_mathematics"):
        load_table(DATA / "routellm")
    table = load_table(DATA / "routellm", repair=True)
    # 14,042 + 1,319 + 80 less 105 repeats, less the 270 of the broken column.
    assert (len(table), len(table.models)) == (15066, 2)
    assert "high_school_mathematics" not in table.tasks
    assert np.all(table.cost_NM > 0)
