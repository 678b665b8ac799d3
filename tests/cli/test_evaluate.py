"""What every measuring command refuses before it begins."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mofme.cli import app

COMMANDS = {
    "evaluate restoration": ["--out"],
    "evaluate segmentation FOLDER FOLDER": ["--out"],
    "evaluate classification FOLDER": ["--out"],
    "evaluate ablation FOLDER": ["--out", "--arms"],
    "evaluate routers FOLDER": ["--out", "--arms"],
    "evaluate attention-router --text FOLDER": ["--out", "--arms"],
    "evaluate mixture-of-routers FOLDER": ["--out", "--arms", "--adapters"],
    "evaluate distillation FOLDER": ["--out", "--arms"],
    "evaluate dense-to-moe smollm2 --text FOLDER --questions FOLDER": ["--out", "--arms"],
    "evaluate rerouting pictures FOLDER --references FOLDER": ["--out", "--work"],
    "evaluate rerouting text FOLDER --pool FOLDER --test FOLDER": ["--out", "--work"],
    "binary train FOLDER": ["--runs"],
    "binary evaluate FOLDER": ["--out", "--runs"],
    "binary pack FOLDER FOLDER": ["--out"],
    "binary restorer FOLDER": ["--out"],
    "build-references FOLDER": ["--out"],
}


@pytest.mark.parametrize(("command", "option"), [(words, option) for words in COMMANDS for option in COMMANDS[words]])
def test_a_file_in_place_of_a_folder_is_refused_before_the_work(tmp_path: Path, command: str, option: str) -> None:
    (tmp_path / "taken").write_text("mine")
    words = command.replace("FOLDER", str(tmp_path)).split()
    result = CliRunner().invoke(app, [*words, option, str(tmp_path / "taken")], env={"COLUMNS": "500"})
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr and "is a file" in result.stderr
    assert (tmp_path / "taken").read_text() == "mine"
