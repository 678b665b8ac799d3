import csv
import math
import shutil
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
from mofme.vision.models import SIZES, stays_real
from mofme.vision.nets.unet import NetOutput
from mofme.vision.restorer import Restorer
from mofme.vision.training import TrainingPlan, ValidationPairs, train, validate, validation_pairs
from mofme.vision.weather import WEATHERS


def smooth_picture(seed: int, side: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def save_pictures(folder: Path, count: int = 3, side: int = 260) -> Path:
    folder.mkdir()
    for i in range(count):
        smooth_picture(i, side).save(folder / f"picture {i}.png")
    return folder


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


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pictures(tmp_path_factory.mktemp("data") / "clean")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> Path:
    """A run of two seconds on two photographs, one more held back, and a pair."""
    pairs = tmp_path_factory.mktemp("pairs")
    for part in ("input", "target"):
        (pairs / part).mkdir()
        smooth_picture(9, 64).save(pairs / part / "pair.png")
    out = tmp_path_factory.mktemp("trained")
    run(plan(out, clean, minutes=2 / 60, pairs={pairs: 0.2}, judges=[pairs], sources="made by code", licence="CC0"))
    return out


def test_a_run_writes_a_model_that_restores(trained: Path) -> None:
    written = {path.name for path in trained.iterdir()}
    assert {"model.safetensors", "card.json", "state.pt", "curve.csv", "validation.png"} <= written
    assert not [name for name in written if name.endswith(".part")]
    restorer = Restorer.from_pretrained(str(trained), device="cpu")
    assert restorer.name == "small"
    assert restorer(torch.rand(3, 20, 30)).image.shape == (3, 20, 30)


def test_the_card_tells_the_run(trained: Path) -> None:
    card = load_card(trained)
    assert (card.net, card.licence, card.training["data"]) == ("restoration", "CC0", "made by code")
    (told,) = card.training["runs"]
    assert card.training["curve"][-1]["steps"] == told["steps"]
    assert told["steps"] == steps(trained) > 0
    # Crops of 32 by twos; then, after 65 % of the time, of 56 one at a time.
    assert told["steps"] < told["pictures"] <= 2 * told["steps"]
    assert set(card.metrics["validation"]) == {"rain", "snow", "raindrop", "haze", "clean_kept"}
    assert len(card.metrics["judged_gain"]) == 1


def test_the_curve_has_a_row_for_each_validation(trained: Path) -> None:
    with (trained / "curve.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert int(row["steps"]) == steps(trained)
    assert {"minutes", "gain_rain", "gain_snow", "gain_raindrop", "gain_haze", "clean"} <= row.keys()


def test_a_run_starts_from_a_model(trained: Path, clean: Path, tmp_path: Path) -> None:
    run(plan(tmp_path, clean, init=trained))
    first, second = (Restorer.from_pretrained(str(folder), device="cpu").net for folder in (trained, tmp_path))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [told["steps"] for told in load_card(tmp_path).training["runs"]] == [steps(trained), 0]


@pytest.fixture(scope="module")
def trained_binary(tmp_path_factory: pytest.TempPathFactory, clean: Path, trained: Path) -> Path:
    """A second of binary weights, started from that run."""
    out = tmp_path_factory.mktemp("trained binary")
    run(plan(out, clean, init=trained, binary=True, minutes=1 / 60))
    return out


def test_shares_that_leave_nothing_for_weather(trained: Path, clean: Path, tmp_path: Path) -> None:
    with pytest.raises(MofmeError, match=r"add up to 1\.1"):
        run(plan(tmp_path, clean, pairs={trained: 1.0}))


def test_binary_weights_are_kept_as_the_signs_of_the_average(trained_binary: Path) -> None:
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


def test_binary_weights_learn_as_real_ones_between_minus_and_plus_one(trained: Path, trained_binary: Path) -> None:
    state = torch.load(trained_binary / "state.pt", weights_only=True)["net"]
    names = load_card(trained_binary).arguments["binary"]
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


def test_real_training_stays_as_it_was(trained: Path) -> None:
    card = load_card(trained)
    assert card.arguments == SIZES["small"]
    assert not any("binary" in told for told in card.training["runs"])
    # One group: states of earlier runs can be resumed.
    assert len(torch.load(trained / "state.pt", weights_only=True)["optimizer"]["param_groups"]) == 1


def test_a_state_is_resumed_by_each_of_several_processes_on_a_cpu(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "state.pt", {"weights": torch.arange(3.0)})
    state = load_checkpoint(tmp_path / "state.pt", torch.device("cpu:1"))
    assert state is not None
    assert state["weights"].tolist() == [0, 1, 2]


CPU = torch.device("cpu")


class Painter(nn.Module):
    """A net whose every answer is a picture of one grey."""

    def __init__(self, grey: int) -> None:
        super().__init__()
        self.grey = grey

    def forward(self, image: Tensor) -> NetOutput:
        assert not self.training
        return NetOutput(torch.full_like(image, self.grey / 255), torch.zeros(len(image), 4))


class Identity(nn.Module):
    def forward(self, image: Tensor) -> NetOutput:
        return NetOutput(image, torch.zeros(len(image), 4))


def photographs(count: int, height: int = 270, width: int = 300) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8) for _ in range(count)]


def greys(weathered: int, clean: int) -> ValidationPairs:
    pictures = torch.full((2, 3, 8, 8), 1 / 255)
    return ValidationPairs(dict.fromkeys(WEATHERS, weathered * pictures), clean * pictures)


def test_pairs_are_centre_crops_with_every_weather() -> None:
    (photograph,) = photographs(1)
    pairs = validation_pairs([photograph], seed=0)
    assert torch.equal((pairs.clean[0] * 255).round().byte(), photograph[:, 7:263, 22:278])
    assert tuple(pairs.weathered) == WEATHERS
    for weathered in pairs.weathered.values():
        assert weathered.shape == pairs.clean.shape
        assert not torch.equal(weathered, pairs.clean)
        assert weathered.min() >= 0
        assert weathered.max() <= 1


def test_pairs_are_the_same_at_every_call() -> None:
    first, again, other = (validation_pairs(photographs(2), seed=seed) for seed in (3, 3, 4))
    for name in WEATHERS:
        assert torch.equal(first.weathered[name], again.weathered[name])
        assert not torch.equal(first.weathered[name], other.weathered[name])


def test_small_photographs_are_left_out() -> None:
    small, large = photographs(30, 100, 300), photographs(3)
    assert len(validation_pairs([*small, *large], seed=0).clean) == 3
    with pytest.raises(MofmeError, match="256 x 256"):
        validation_pairs(small, seed=0)


def test_at_most_eight_photographs() -> None:
    assert len(validation_pairs(photographs(9, 256, 256), seed=0).clean) == 8


def test_figures_by_hand() -> None:
    # Off by 20, 10 and 10 steps of 255: PSNR = 20 log10(255 / error).
    report = validate(Painter(110), greys(weathered=120, clean=100), CPU)
    for name in WEATHERS:
        assert report.untouched[name] == pytest.approx(20 * math.log10(255 / 20), abs=1e-3)
        assert report.restored[name] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
        assert report.gains()[name] == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert report.kept_clean == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert report.flat() == pytest.approx({**{f"gain_{name}": 6.021 for name in WEATHERS}, "clean": 28.13})
    assert "haze +6.02" in report.line()
    assert report.figures()["snow"] == {"input": 22.11, "restored": 28.13}


def test_the_net_is_left_in_its_mode() -> None:
    net = Painter(100)
    for mode in (True, False):
        net.train(mode)
        validate(net, greys(120, 100), CPU)
        assert net.training == mode


@pytest.mark.parametrize("count", [1, 2])
def test_the_sheet_has_a_row_for_each_weather(tmp_path: Path, count: int) -> None:
    # Each sample is three pictures side by side: input, restored, clean; 2 pixels lie between and around.
    pairs = validation_pairs(photographs(count, 256, 256), seed=0)
    validate(Identity(), pairs, CPU).save_sheet(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (3 * count * 258 + 2, 4 * 258 + 2)
        third = torch.from_numpy(np.array(sheet)[2 : 2 + 256, 2 + 2 * 258 : 2 * 258 + 258])
    assert torch.equal(third.permute(2, 0, 1), (pairs.clean[0] * 255).round().byte())


def test_a_run_goes_on_without_its_judges(trained: Path, clean: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "out")
    with (out / "curve.csv").open(newline="") as file:
        before = list(csv.DictReader(file))
    run(plan(out, clean))  # its minutes are used up: it only concludes
    with (out / "curve.csv").open(newline="") as file:
        after = list(csv.DictReader(file))
    assert len(after) == len(before) + 1 and after[0] == before[0]
