"""What must not change, against what was recorded: see `tests/golden.py`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mofme import LoraMixture, Restorer, TrainedRouter
from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError
from mofme.files import CARD_FILE, WEIGHTS
from mofme.language.small_lm import load_lm
from mofme.papers.binaryconnect.net import load_digit_net
from mofme.papers.r2t2.references import References
from mofme.papers.smose.policy import load_policy
from mofme.vision.segmenter import load_segmenter
from tests import golden

RECORDED = golden.recorded()
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures() -> dict[str, Tensor]:
    with golden.full_precision():
        return golden.pictures()


def test_the_same_pictures_are_recorded(pictures: dict[str, Tensor]) -> None:
    assert pictures.keys() == RECORDED["pictures"]["bits"].keys()


@pytest.mark.parametrize("name", RECORDED["pictures"]["bits"])
def test_pictures_stay(name: str, pictures: dict[str, Tensor]) -> None:
    image = pictures[name]
    with np.load(golden.SAMPLES) as samples:
        off = np.abs(golden.sampled(image).astype(int) - samples[name])
    # Another processor differs by about 3e-7 of 1, which moves one sample in thousands over an edge of 8 bits. In a
    # video a moved sample may change how the frames after it are coded.
    if name == "video":
        assert off.mean() < 0.05
    else:
        assert off.max() <= 1 and (off > 0).mean() <= 0.001
    if golden.machine() == RECORDED["pictures"]["machine"]:
        assert golden.bits(image) == RECORDED["pictures"]["bits"][name]


@pytest.mark.parametrize("model", golden.MODELS)
def test_ways_that_must_agree_bit_for_bit(model: str) -> None:
    restorer, image = Restorer.from_pretrained(model, "cpu"), golden.weathered("tone")
    with golden.full_precision():
        whole = restorer(image).image
        for options in ({}, {"explain": True}, {"tile": 768}, {"on_progress": lambda share: None}):
            assert torch.equal(restorer(image, **options).image, whole)
        assert torch.equal(restorer(image, strength=0.0).image, image)
        assert torch.equal(restorer(image, strength=0.25).image, image.lerp(whole, 0.25))


def test_the_command_writes_what_the_restorer_returns(tmp_path: Path) -> None:
    image = golden.weathered("plain")
    Image.fromarray(golden.eight_bits(image).transpose(1, 2, 0)).save(tmp_path / "a.png")
    with golden.full_precision():
        code, said = golden.exit_code("restore", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--device", "cpu")
        expected = golden.eight_bits(Restorer.from_pretrained(device="cpu")(image).image)
    assert code == 0, said
    with Image.open(tmp_path / "b.png") as written:
        assert np.array_equal(np.asarray(written).transpose(2, 0, 1), expected)


def compare(found: Any, expected: Any, path: str) -> None:
    """Exactly, but for floats."""
    match expected:
        case dict():
            assert found.keys() == expected.keys(), path
            for name in expected:
                compare(found[name], expected[name], f"{path} > {name}")
        case [float(), *_]:
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), path
        case _:
            assert found == expected, path


@pytest.mark.parametrize("entry", ["weather", "untrained", "answers", "api", "commands", "weights"])
def test_entries_stay(entry: str) -> None:
    with golden.full_precision():
        compare(golden.ENTRIES[entry](), RECORDED[entry], entry)


@pytest.mark.parametrize("name", golden.commands())
def test_help_names_every_option(name: str) -> None:
    code, said = golden.exit_code(*name.split(), "--help")
    assert code == 0
    options = [p.opts[-1] for p in golden.commands()[name].params if p.param_type_name == "option"]
    assert [option for option in options if option not in said] == []
    assert golden.exit_code(*name.split(), "--no-such-option")[0] == 2


def test_exit_codes_without_a_file() -> None:
    found, expected = golden.exit_codes(), RECORDED["exit codes"]
    assert found.keys() == expected.keys()
    # 2 says that nothing was begun: to that a code may change.
    assert {name: code for name, code in found.items() if code not in (2, expected[name])} == {}


def test_parameters_keep_their_names_and_order() -> None:
    found, expected = golden.signatures(), RECORDED["signatures"]
    # More may follow, and more names: nobody's call breaks by that.
    assert {name: f"{found.get(name)} "[: len(expected[name]) + 1] for name in expected} == {
        name: f"{parameters} " for name, parameters in expected.items()
    }


LOADERS: dict[str, Callable[[Path], Any]] = {
    "digits": load_digit_net,
    "llm-router": lambda folder: TrainedRouter.from_pretrained(str(folder)),
    "lora-mixture": lambda folder: LoraMixture.from_pretrained(str(folder)),
    "rerouting-references": References.load,
    "restoration": lambda folder: Restorer.from_pretrained(str(folder)),
    "segmentation": lambda folder: load_segmenter(str(folder)),
    "small-lm": load_lm,
    "sparse-linear-policy": load_policy,
    "tone": lambda folder: Restorer.from_pretrained(str(folder.parent)),
}


@pytest.mark.parametrize("name", RECORDED["weights"])
def test_every_card_loads(name: str) -> None:
    assert (WEIGHTS / name / CARD_FILE).is_file()
    assert LOADERS[load_card(WEIGHTS / name).net](WEIGHTS / name) is not None


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_a_model_of_another_kind_is_refused(load: Callable[[Path], Any], tmp_path: Path) -> None:
    save_model(tmp_path / "x", ModelCard("x", "another", {}, "none"), {})
    with pytest.raises(ModelError, match="another kind: another"):
        load(tmp_path / "x" / "tone" if load is LOADERS["tone"] else tmp_path / "x")


def test_quoting_again_changes_nothing(tmp_path: Path) -> None:
    pages = [shutil.copy(ROOT / name, tmp_path) for name in ("README.md", "PAPERS.md")]
    before = [Path(page).read_bytes() for page in pages]
    code, said = golden.exit_code("results", "--quote", *map(str, pages))
    assert code == 0 and said.count("up to date") == 2
    assert [Path(page).read_bytes() for page in pages] == before
