import json
from dataclasses import replace

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


def run(*arguments):
    return CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "200"})


def test_the_table_tells_size_training_figures_and_licence(monkeypatch, tmp_path):
    monkeypatch.setattr(restorer, "available_models", lambda: [CARD])
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "card.json").touch()
    (tmp_path / "small" / "model.safetensors").write_bytes(bytes(940_000))
    result = run()
    assert result.exit_code == 0
    for text in (
        "small",
        "restoration",
        "1.23 M",
        "0.9 MB",
        "90 min",
        "rain 24.0 -> 27.5",
        "clean kept 44.4",
        "Apache",
    ):
        assert text in result.stdout


def test_json_holds_the_whole_cards(monkeypatch):
    monkeypatch.setattr(restorer, "available_models", lambda: [CARD])
    (card,) = json.loads(run("--json").stdout)
    assert ModelCard(**card) == CARD


def test_a_card_with_little_in_it(monkeypatch):
    bare = ModelCard(name="mine", net="restoration", arguments={}, licence="MIT")
    monkeypatch.setattr(restorer, "available_models", lambda: [bare])
    assert "mine" in run().stdout


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


def test_figures_of_photographs_held_back_are_told_where_there_are_no_others(monkeypatch, tmp_path):
    card = replace(CARD, metrics={"held_back": {"rain": {"input": 1, "restored": 2}}})
    monkeypatch.setattr(restorer, "available_models", lambda: [card])
    monkeypatch.setattr(files, "WEIGHTS", tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "card.json").touch()
    assert "rain 1.0 -> 2.0" in run().stdout
