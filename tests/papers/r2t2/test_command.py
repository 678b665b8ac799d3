import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from mofme.cli.app import app
from mofme.core.weights import ModelCard, save_model
from mofme.papers.r2t2 import building
from mofme.papers.r2t2.references import Choices, References
from mofme.vision.nets.unet import RestorationNet


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def save_net(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    arguments = {"widths": [8, 8, 8], "blocks": [1, 1, 1], "num_experts": 4}
    net = RestorationNet(**arguments)  # type: ignore[arg-type]
    torch.nn.init.normal_(net.head.weight, std=0.01)
    save_model(folder, ModelCard("tiny", "restoration", arguments, "free"), net.state_dict())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and references that the command made for it of two photographs, whatever it gained on them."""
    place = tmp_path_factory.mktemp("made")
    photographs = place / "photographs"
    photographs.mkdir()
    random = np.random.default_rng(0)
    for name in ("p2", "p3"):  # of these training holds none back
        pixels = random.integers(0, 256, (132, 132, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photographs / f"{name}.png")
    model, folder = save_net(place / "model", 0), place / "references"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "SOLVED", -100.0)
        patch.setattr(building, "LARGEST_K", 4)
        patch.setattr(building, "candidates", lambda: iter([Choices("stored steps", 2), Choices("mode finding", 2)]))
        result = run("build-references", photographs, "--out", folder, "--model", model, "--licence", "free")
    assert result.exit_code == 0, result.output
    return model, folder


def test_what_was_built_restores(made: tuple[Path, Path], tmp_path: Path) -> None:
    model, folder = made
    references = References.load(folder)
    assert len(references) >= 4
    assert references.clean_NCHW is None  # photographs are not passed on unless asked for
    Image.new("RGB", (24, 16), (90, 120, 150)).save(tmp_path / "a.png")
    result = run("restore", tmp_path / "a.png", tmp_path / "b.png", "--model", model, "--references", folder, "--json")
    assert result.exit_code == 0, result.output
    assert f"re-routed by {references.choices.method}" in result.stderr
    (cost,) = json.loads(result.stdout)["rerouted"]
    assert cost["extra_seconds"] > 0 and cost["moved"] > 0


def test_other_weights_are_refused_with_what_to_type(made: tuple[Path, Path], tmp_path: Path) -> None:
    other = save_net(tmp_path / "other", 1)
    Image.new("RGB", (24, 16)).save(tmp_path / "a.png")
    result = run("restore", tmp_path / "a.png", tmp_path / "b.png", "--model", other, "--references", made[1])
    assert result.exit_code == 2
    assert "python -m mofme build-references" in result.stderr
    assert not (tmp_path / "b.png").exists()


def test_a_model_that_solves_nothing_and_a_folder_that_holds_a_model(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    for name in ("p2", "p3"):
        Image.new("RGB", (16, 16)).save(photographs / f"{name}.png")  # too small to cut anything from
    model = save_net(tmp_path / "model", 0)
    before = (model / "model.safetensors").read_bytes()
    for out, told in ((tmp_path / "out", "only 0 pairs were solved"), (model, "model holds a 'restoration' model")):
        result = run("build-references", photographs, "--out", out, "--model", model)
        assert result.exit_code == 2 and told in result.stderr
    assert (model / "model.safetensors").read_bytes() == before
