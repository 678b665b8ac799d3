"""What users build on: a change here is a change for them, and belongs in the changelog."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import mofme
from mofme.cli.app import app

ERRORS = {
    "PictureError": "MofmeError",
    "PictureTooLargeError": "PictureError",
    "ArchiveError": "MofmeError",
    "ModelError": "MofmeError",
    "ResultError": "MofmeError",
    "TableError": "MofmeError",
    "ConfigError": "MofmeError",
    "Cancelled": "MofmeError",
}
COMMANDS = {
    "restore": "SOURCE OUTPUT --model --device --tile --strength --ensemble --reroute --references --overwrite "
    "--format --json --max-megapixels",
    "build-references": "PHOTOGRAPHS --out --model --limit --pairs --seed --sources --licence",
    "models": "--json",
    "synthesize": "CLEAN OUT --weather --seed --count",
    "train": "CLEAN --out --pairs --haze --rain-layers --identity --judge --size --init --minutes --batch --crop "
    "--canvas --learning-rate --seed --device --validate-minutes --sources --licence --binary",
    "train-segmenter": "FRAMES LABELS --out --label-set --steps --batch --learning-rate --seed --from-scratch "
    "--sources --licence",
    "train-tone": "CLEAN --out --model --samples --steps --batch --learning-rate --seed --sources --licence",
    "binary train": "DIGITS --runs --arm --seeds --epochs --batch --learning-rate --width",
    "binary evaluate": "DIGITS --runs --nets --repeats --out --json",
    "binary pack": "DIGITS RUN --out --licence",
    "binary restorer": "PHOTOGRAPHS --model --against --limit --seed --out --json",
    "bench": "--side --experts --repeats --backbone --out --json",
    "bench restorers": "PAIRS --model --onnx --limit --out --json",
    "bench routing-server": "--clients --requests --router --out --json",
    "evaluate attention-router": "--text --arms --seeds --steps --balance --out --json",
    "evaluate routers": "CLEAN --arms --seeds --steps --limit --out --json",
    "evaluate ablation": "CLEAN --arms --seeds --steps --limit --lpips-weights --out --json",
    "evaluate restoration": "PAIRS --held-back --model --device --ensemble --lpips-weights --limit --seed --out --json",
    "evaluate classification": "PICTURES --classifier --degraded --weather --seed --model --device --limit --out "
    "--json",
    "moefy": "MODEL --text --out --target --experts --shared --split --router --tokens --seed --licence",
    "distil": "TEACHER STUDENT --text --out --method --layers --steps --batch --passages --learning-rate --seed "
    "--licence",
    "evaluate distillation": "TEXTS --arms --seeds --steps --pair-steps --learning-rate --licence --out --json",
    "evaluate dense-to-moe": "MODEL --text --questions --arms --task --target --experts --shared --tokens --measure "
    "--limit --seeds --out --json",
    "evaluate rerouting pictures": "PHOTOGRAPHS --references --work --model --limit --seed --out --json",
    "evaluate rerouting text": "MODEL --pool --test --work --task --references --limit --layers --seed --out --json",
    "evaluate mixture-of-routers": "TABLES --arms --steps --batch --limit --seeds --adapters --licence --out --json",
    "results": "NAMES --quote --judge --folder",
    "app": "--host --port --auth --max-megapixels",
    "control train": "ENVIRONMENT --out --steps --seed --experts --balance",
    "control evaluate": "POLICIES --episodes --trees --out --json",
    "control explain": "POLICY --depth --seed --picture",
    "route evaluate": "TABLES --splits --seed --repair --models --out --json",
    "route prompt": "PROMPT --budget --cost-weight --quality --router --json",
    "route robustness": "--queries --table --seeds --router --out --json",
    "route serve": "CONFIG --host --port --router --check",
    "route simulate": "--largest --out --json",
    "route train": "TABLE --out --estimator --seed --prices --repair --licence",
    "evaluate segmentation": "FRAMES LABELS --segmenter --label-set --segmenter-labels --normalisation --degraded "
    "--weather --seed --model --device --limit --pictures --out --json",
}


def test_top_level_names_are_sorted_documented_and_there() -> None:
    assert mofme.__all__ == sorted(mofme._HOME_OF)
    for name in mofme.__all__:
        found = getattr(mofme, name)
        # A dataclass without a docstring is given its own signature for one.
        assert found.__doc__ and not found.__doc__.startswith(f"{name}(")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mofme.nonsense  # noqa: B018


def test_importing_the_package_loads_nothing_slow() -> None:
    check = "import sys, mofme; assert not {'torch', 'numpy', 'gradio'} & sys.modules.keys(); mofme.ModelError"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[1])


def test_the_tree_of_errors() -> None:
    errors = importlib.import_module("mofme.errors")
    assert {name: getattr(errors, name).__base__.__name__ for name in ERRORS} == ERRORS


def test_the_weathers_in_their_order() -> None:
    assert importlib.import_module("mofme.vision.weather").WEATHERS == ("rain", "snow", "raindrop", "haze")


def test_commands_keep_their_flags() -> None:
    def walk(command: object, name: tuple[str, ...] = ()) -> dict[str, str]:
        children = getattr(command, "commands", {})
        below = {k: v for child in children for k, v in walk(children[child], (*name, child)).items()}
        if children and not command.invoke_without_command:  # type: ignore[attr-defined]
            return below
        parameters = [
            p.opts[-1] if p.param_type_name == "option" else p.name.upper()
            for p in command.params  # type: ignore[attr-defined]
        ]
        return {" ".join(name): " ".join(parameters), **below}

    assert walk(typer.main.get_command(app)) == COMMANDS


def test_it_knows_its_version() -> None:
    assert mofme.__version__ == "0.1.0"
