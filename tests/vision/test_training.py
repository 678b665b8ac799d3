import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mofme.core.training import load_checkpoint, save_checkpoint
from mofme.core.weights import load_card
from mofme.errors import ModelError, MofmeError
from mofme.vision import training as module
from mofme.vision.models import SIZES, stays_real
from mofme.vision.nets.unet import NetOutput
from mofme.vision.restorer import Restorer
from mofme.vision.training import TrainingPlan, ValidationPairs, train, validate, validation_pairs
from mofme.vision.weather import WEATHERS


def save_smooth(path: Path, seed: int, side: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path)


def plan(out: Path, clean: Path, **options: Any) -> TrainingPlan:
    return TrainingPlan(
        **{"out": out, "clean": [clean], "crop": 32, "canvas": 48, "batch": 2, "minutes": 0.0, **options}
    )


def run(training: TrainingPlan) -> list[str]:
    lines: list[str] = []
    train(training, report=lines.append, device="cpu")
    return lines


def steps(folder: Path) -> int:
    return torch.load(folder / "state.pt", weights_only=True)["progress"]["steps"]


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "curve.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def small_checks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SIDE", 64)
        yield


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for i in range(3):
        save_smooth(folder / f"picture {i}.png", i, 70)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> Path:
    """A run of a second on two photographs, one more held back, and a pair."""
    pairs = tmp_path_factory.mktemp("pairs")
    for part in ("input", "target"):
        save_smooth(pairs / part / "pair.png", 9, 64)
    out = tmp_path_factory.mktemp("trained")
    run(plan(out, clean, minutes=1 / 60, pairs={pairs: 0.2}, judges=[pairs], sources="made by code", licence="CC0"))
    return out


def test_a_run_writes_a_model_that_restores_and_tells_of_itself(trained: Path, clean: Path, tmp_path: Path) -> None:
    written = {path.name for path in trained.iterdir()}
    assert {"model.safetensors", "card.json", "state.pt", "curve.csv", "validation.png"} <= written
    assert not [name for name in written if name.endswith(".part")]
    restorer = Restorer.from_pretrained(str(trained), device="cpu")
    assert restorer.name == "small"
    assert restorer(torch.rand(3, 20, 30)).image.shape == (3, 20, 30)
    card = load_card(trained)
    assert (card.net, card.licence, card.training["data"]) == ("restoration", "CC0", "made by code")
    (told,) = card.training["runs"]
    assert card.training["curve"][-1]["steps"] == told["steps"]
    assert told["steps"] == steps(trained) > 0
    # Crops of 32 by twos; then, after 65 % of the time, of 56 one at a time.
    assert told["steps"] < told["pictures"] <= 2 * told["steps"]
    assert set(card.metrics["validation"]) == {"rain", "snow", "raindrop", "haze", "clean_kept"}
    assert len(card.metrics["judged_gain"]) == 1
    (row,) = curve(trained)
    assert int(row["steps"]) == steps(trained)
    assert {"minutes", "gain_rain", "gain_snow", "gain_raindrop", "gain_haze", "clean"} <= row.keys()
    # A run goes on without its judges. Its minutes are used up: it only concludes.
    out = shutil.copytree(trained, tmp_path / "out")
    run(plan(out, clean))
    assert [one["steps"] for one in curve(out)] == [row["steps"]] * 2 and curve(out)[0] == row
    # Training of real weights has one group: states of earlier runs can be resumed.
    assert len(torch.load(trained / "state.pt", weights_only=True)["optimizer"]["param_groups"]) == 1
    assert card.arguments == SIZES["small"] and "binary" not in told


def test_a_run_starts_from_a_model(trained: Path, clean: Path, tmp_path: Path) -> None:
    run(plan(tmp_path, clean, init=trained))
    first, second = (Restorer.from_pretrained(str(folder), device="cpu").net for folder in (trained, tmp_path))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [told["steps"] for told in load_card(tmp_path).training["runs"]] == [steps(trained), 0]
    with pytest.raises(MofmeError, match=r"add up to 1\.1"):  # nothing is left for weather
        run(plan(tmp_path / "none", clean, pairs={trained: 1.0}))


@pytest.fixture(scope="module")
def trained_binary(tmp_path_factory: pytest.TempPathFactory, clean: Path, trained: Path) -> Path:
    """Half a second of binary weights, started from that run."""
    out = tmp_path_factory.mktemp("trained binary")
    run(plan(out, clean, init=trained, binary=True, minutes=0.5 / 60))
    return out


def test_binary_weights_are_kept_as_the_signs_of_the_average(trained: Path, trained_binary: Path) -> None:
    card = load_card(trained_binary)
    assert card.name == "small-binary"
    assert [told.get("binary", False) for told in card.training["runs"]] == [False, True]
    names = card.arguments["binary"]
    assert "middle.0.0.conv1" in names
    assert not any(stays_real(name) for name in names)
    average = torch.load(trained_binary / "state.pt", weights_only=True)["average"]
    net = Restorer.from_pretrained(str(trained_binary), device="cpu").net
    for name in names:
        real, scale = (average[f"module.{name}.{part}"] for part in ("weight", "scale"))
        scale = scale.half().float().view(-1, *[1] * (real.ndim - 1))
        assert torch.equal(net.get_parameter(f"{name}.weight"), torch.where(real >= 0, scale, -scale))
    # They learn as real ones between -1 and 1.
    state = torch.load(trained_binary / "state.pt", weights_only=True)["net"]
    assert all(state[f"{name}.weight"].abs().max() <= 1 for name in names)
    assert any(state[f"{name}.weight"].abs().unique().numel() > 2 for name in names)
    started = Restorer.from_pretrained(str(trained), device="cpu").net.get_parameter("middle.0.0.conv1.weight")
    largest = started.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert not torch.allclose(state["middle.0.0.conv1.weight"], started / largest, atol=1e-4)


def test_a_binary_run_is_resumed(trained: Path, trained_binary: Path, clean: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_binary, tmp_path / "copy")
    # However slow the machine: half a second more than was used before, which is a step at least.
    seconds = torch.load(tmp_path / "copy" / "state.pt", weights_only=True)["progress"]["seconds"]
    lines = run(plan(tmp_path / "copy", clean, init=trained, binary=True, minutes=(seconds + 0.5) / 60))
    assert f"resumed at step {steps(trained_binary)}," in lines[0]
    assert steps(tmp_path / "copy") > steps(trained_binary)
    with pytest.raises(ModelError, match=r"state\.pt.*keep to its settings"):
        run(plan(tmp_path / "copy", clean, init=trained, minutes=2 / 60))


def test_a_state_is_resumed_by_each_of_several_processes_on_a_cpu(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "state.pt", {"weights": torch.arange(3.0)})
    state = load_checkpoint(tmp_path / "state.pt", torch.device("cpu:1"))
    assert state is not None and state["weights"].tolist() == [0, 1, 2]


# What each of the processes runs: a training that notes its losses, and a sum of all weights after each step.
WATCHED = """
import json, os, sys
from pathlib import Path
from mofme.vision import training

seen = []

class Watched(training._SharedRun):
    def learn(self, loss):
        loss = super().learn(loss)
        seen.append([loss, sum(float(weight.double().sum()) for weight in self.net.parameters())])
        return loss

training._SIDE, training._SharedRun = 64, Watched
clean, out = map(Path, sys.argv[1:])
training.train(training.TrainingPlan(out, [clean], crop=32, canvas=48, batch=2, minutes=2 / 60), device="cpu")
(out / f"seen {os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


def test_two_processes_learn_one_net_from_different_pictures(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "watched.py").write_text(WATCHED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    root = str(Path(module.__file__).parents[2])
    out, environment = tmp_path / "out", {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    subprocess.run([*torchrun, tmp_path / "watched.py", clean, out], check=True, env=environment, timeout=600)
    first, second = (json.loads((out / f"seen {rank}.json").read_text()) for rank in range(2))
    assert len(first) == len(second) == steps(out) > 0
    for (loss, weights), (other_loss, other_weights) in zip(first, second, strict=True):
        assert loss != other_loss and weights == other_weights
    (told,) = load_card(out).training["runs"]
    assert told["processes"] == 2
    assert 2 * steps(out) < told["pictures"] <= 2 * 2 * steps(out)  # one or two a step, in each


CPU = torch.device("cpu")


class Painter(nn.Module):
    """A net whose every answer is a picture of one grey."""

    def __init__(self, grey: int) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, image: Tensor) -> NetOutput:
        assert not self.training
        return NetOutput(torch.full_like(image, self.grey / 255), torch.zeros(len(image), 4))


def photographs(count: int, height: int = 270, width: int = 300) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


def test_pairs_are_centre_crops_with_every_weather() -> None:
    (photograph,) = photographs(1)
    pairs, again, other = (validation_pairs([photograph], seed=seed) for seed in (3, 3, 4))
    assert torch.equal((pairs.clean[0] * 255).round().byte(), photograph[:, 103:167, 118:182])
    assert tuple(pairs.weathered) == WEATHERS
    for name, weathered in pairs.weathered.items():
        assert weathered.shape == pairs.clean.shape
        assert not torch.equal(weathered, pairs.clean)
        assert weathered.min() >= 0 and weathered.max() <= 1
        assert torch.equal(weathered, again.weathered[name])
        assert not torch.equal(weathered, other.weathered[name])


def test_small_photographs_are_left_out_and_eight_are_enough() -> None:
    small, large = photographs(30, 40, 70), photographs(9, 70, 70)
    assert len(validation_pairs([*small, *large[:3]], seed=0).clean) == 3
    assert len(validation_pairs(large, seed=0).clean) == 8
    with pytest.raises(MofmeError, match="64 x 64"):
        validation_pairs(small, seed=0)


def test_figures_by_hand() -> None:
    # Off by 20, 10 and 10 steps of 255: PSNR = 20 log10(255 / error).
    net, step = Painter(110), torch.full((2, 3, 8, 8), 1 / 255)
    report = validate(net, ValidationPairs(dict.fromkeys(WEATHERS, 120 * step), 100 * step), CPU)
    assert net.training  # it is left in its mode
    for name in WEATHERS:
        assert report.untouched[name] == pytest.approx(20 * math.log10(255 / 20), abs=1e-3)
        assert report.restored[name] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
        assert report.gains()[name] == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert report.kept_clean == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert report.figures()["snow"] == {"input": 22.11, "restored": 28.13}


def test_the_sheet_has_a_row_for_each_weather(tmp_path: Path) -> None:
    # Each sample is three pictures side by side: input, restored, clean; 2 pixels lie between and around.
    pairs = validation_pairs(photographs(1), seed=0)
    validate(Painter(100), pairs, CPU).save_sheet(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * 66 + 2, 4 * 66 + 2)
        third = torch.from_numpy(np.array(sheet)[2 : 2 + 64, 2 + 2 * 66 : 3 * 66])
    assert torch.equal(third.permute(2, 0, 1), (pairs.clean[0] * 255).round().byte())
