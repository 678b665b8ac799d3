import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from mofme import files
from mofme.cli.app import app
from mofme.core.weights import ModelCard
from mofme.errors import ModelError
from mofme.vision import restorer

CARD = ModelCard(
    name="small",
    net="restoration",
    arguments={"widths": [32, 64]},
    licence="Apache-2.0",
    training={"runs": [{"minutes": 30}, {"hours": 1.0}]},
    metrics={"validation": {"rain": {"input": 24.04, "restored": 27.51}, "clean_kept": 44.4}},
    parameters=1_234_567,
    sha256="00",
)
HELD_BACK = ModelCard("mine", "restoration", {}, "MIT", metrics={"held_back": {"rain": {"input": 1, "restored": 2}}})
BARE = ModelCard("bare", "restoration", {}, "MIT")


def run(*arguments):
    return CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "200"})


@pytest.fixture
def cards(monkeypatch, tmp_path):
    """Those of these three models, of which the first has weights."""
    monkeypatch.setattr(restorer, "available_models", lambda: [CARD, HELD_BACK, BARE])
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    for name in ("small", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").touch()
    (tmp_path / "small" / "model.safetensors").write_bytes(bytes(940_000))


def test_the_table_tells_size_training_figures_and_licence(cards):
    result = run()
    assert result.exit_code == 0
    size = ("small", "restoration", "1.23 M", "0.9 MB", "90 min")
    for text in (*size, "rain 24.0 -> 27.5", "clean kept 44.4", "Apache", "rain 1.0 -> 2.0", "bare"):
        assert text in result.stdout


def test_the_default_is_marked(cards, monkeypatch):
    monkeypatch.setattr(restorer, "available_models", lambda: [CARD, replace(CARD, name=files.DEFAULT_MODEL)])
    monkeypatch.setattr("mofme.vision.models.weights_bytes", lambda folder: 0)
    lines = run().stdout.splitlines()
    marked = [number for number, line in enumerate(lines) if "(the default)" in line]
    assert marked == [next(number for number, line in enumerate(lines) if line.startswith(files.DEFAULT_MODEL)) + 1]


def test_json_holds_the_whole_cards(cards):
    assert [ModelCard(**card) for card in json.loads(run("--json").stdout)] == [CARD, HELD_BACK, BARE]


def test_no_models_and_damaged_cards(monkeypatch):
    monkeypatch.setattr(restorer, "available_models", lambda: [])
    result = run()
    assert result.exit_code == 0 and "train" in result.stderr
    assert json.loads(run("--json").stdout) == []

    def fail():
        raise ModelError("weights/small/card.json is not a model card")

    monkeypatch.setattr(restorer, "available_models", fail)
    result = run()
    assert result.exit_code == 2 and "card.json" in result.stderr
