from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kornia.filters import guided_blur
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import MofmeError
from mofme.measure.result import load_result
from mofme.papers.mofme import judge_restorers
from mofme.vision import comparison
from mofme.vision.benchmark import peak_of
from mofme.vision.comparison import ALL, BASELINES, COST, NOTHING, Entry, as_result, compare, peaks
from mofme.vision.datasets import find_sets
from mofme.vision.restorer import Restorer
from tests.vision.pictures import save_grey as save
from tests.vision.test_onnx import write_adding
from tests.vision.tiny_models import leaving_all

MEDIAN = "median blur, 3 wide"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two sets: inputs 20 and 40 levels too bright."""
    for name, level in (("rain", 120), ("snow", 140)):
        save(tmp_path / "pairs" / name / "input" / "a.png", level)
        save(tmp_path / "pairs" / name / "target" / "a.png", 100)
    return tmp_path / "pairs"


@pytest.fixture
def darker(monkeypatch: pytest.MonkeyPatch) -> None:
    """All models, whatever their name, take 20 levels away."""

    def restore(image: Tensor) -> SimpleNamespace:
        return SimpleNamespace(image=image - 20 / 255)

    monkeypatch.setattr(comparison.Restorer, "from_pretrained", lambda *_, **__: restore)


@pytest.fixture
def made_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes of their own: doing nothing takes 1 MB, the median filter ends before it tells, others 4 MB."""

    def peak(function: object, kind: str, what: str, *_: str) -> int | None:
        return None if what == MEDIAN else 10**6 if kind == "nothing" else 4 * 10**6

    monkeypatch.setattr(comparison, "peak_of", peak)


def test_who_takes_part() -> None:
    entered = comparison.entries(["small", "runs/mine"], [Path("other.onnx")])
    assert [entry.title for entry in entered] == [NOTHING, "small", "mine", "other.onnx", *BASELINES]
    assert Path(entered[3].what).is_absolute()
    with pytest.raises(MofmeError, match="two restorers have the name mine"):
        comparison.entries(["runs/mine", "more/mine"], [])


def test_a_model_alone_has_nobody_confirm_its_haze(monkeypatch: pytest.MonkeyPatch) -> None:
    darker, grey = leaving_all(0.98), torch.full((3, 16, 16), 0.5)
    with torch.no_grad():
        darker.head.bias[12:] = -1  # by a tenth
    monkeypatch.setattr(
        Restorer, "from_pretrained", lambda *_, **__: Restorer(darker, "test", second=leaving_all(0.02))
    )
    for kind, level in (("model", 0.5), ("alone", 0.4)):
        restored = Entry(kind, "test").load()(grey)
        torch.testing.assert_close(restored, torch.full_like(grey, level), atol=2e-3, rtol=0)


def test_all_are_measured_on_the_same_pictures(pairs: Path, darker: None, made_up_memory: None) -> None:
    entered = [Entry("nothing"), Entry("model", "small"), Entry("baseline", MEDIAN)]
    trials = list(compare(entered, find_sets(pairs)))
    result = as_result(trials, entered, peaks(entered, trials), "measure")
    # PSNR of pictures 20 levels off: 20 log10(255 / 20) = 22.1103 dB; 40 levels: 6.0206 less, 16.0897 dB.
    assert result.figure("rain", NOTHING, "PSNR, dB").value == pytest.approx(22.1103, abs=1e-3)
    assert result.known("rain", NOTHING, "PSNR gain, dB") is None
    # Taking 20 away leaves nothing (100 dB, the cap) and 20. The median of an even picture is the picture.
    gains = [("rain", "small"), ("snow", "small"), (ALL, "small"), (ALL, MEDIAN)]
    expected = [100 - 22.1103, 6.0206, (100 - 22.1103 + 6.0206) / 2, 0]
    assert [result.figure(*of, "PSNR gain, dB").value for of in gains] == pytest.approx(expected, abs=1e-3)
    assert result.figure(COST, "small", "CPU time, ms a megapixel").value > 0
    assert result.figure(COST, "small", "peak memory, MB").value == 3
    assert result.known(COST, MEDIAN, "peak memory, MB") is None
    assert NOTHING not in result.names(COST)
    assert "snow: small +6.02, median blur, 3 wide" in judge_restorers(result).verdict


def test_a_bad_pair_is_told_and_the_rest_go_on(pairs: Path) -> None:
    save(pairs / "rain" / "input" / "b.png", 0)
    (pairs / "rain" / "input" / "0.png").write_bytes(b"no picture")
    save(pairs / "rain" / "target" / "0.png", 0)
    save(pairs / "snow" / "input" / "b.png", 0)
    save(pairs / "snow" / "target" / "b.png", 0, (41, 32))
    entered = [Entry("nothing")]
    trials = {(trial.set, trial.name): trial for trial in compare(entered, find_sets(pairs))}
    assert "0.png" in trials["rain", "0.png"].error
    assert "target/ has no picture" in trials["rain", "b.png"].error
    assert "differ in size" in trials["snow", "b.png"].error
    assert not trials["rain", "a.png"].error and not trials["snow", "a.png"].error
    with pytest.raises(MofmeError, match="no pair could be measured"):
        as_result([trials["rain", "0.png"]], entered, {}, "measure")


TELLS = Path("/proc/self/status").exists()


@pytest.mark.skipif(not TELLS, reason="this system does not tell the peak of a process")
def test_peak_memory_is_that_of_the_work() -> None:
    idle, busy = peak_of(eval, "0"), peak_of(eval, "len(b'1' * 100_000_000)")
    assert idle is not None and busy is not None
    assert 95e6 < busy - idle < 110e6
    assert peak_of(eval, "none") is None


def test_what_an_entry_does_in_a_process_of_its_own(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = str(next(pairs.rglob("*.png")))
    assert not TELLS or peak_of(comparison.run_once, "baseline", MEDIAN, picture, "1")
    ran: list[tuple[object, ...]] = []
    monkeypatch.setattr(comparison, "peak_of", lambda function, *words: ran.append(words) or function(*words))
    trials = list(compare([Entry("nothing")], find_sets(pairs)))
    assert peaks([Entry("nothing"), Entry("baseline", MEDIAN)], trials) == {}
    assert [words[:2] for words in ran] == [("nothing", ""), ("baseline", MEDIAN)]


def test_the_command(pairs: Path, darker: None, made_up_memory: None, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    words = ["bench", "restorers", str(pairs), "--model", "small", "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.stderr
    result = load_result("restorers", tmp_path / "out")
    assert result.names("rain") == [NOTHING, "small", *BASELINES]
    assert result.verdict.split()[-1] in answer.stdout
    assert str(tmp_path) not in result.command
    assert torch.get_num_threads() == threads

    (pairs / "rain" / "input" / "0.png").write_bytes(b"no picture")
    damaged = CliRunner().invoke(app, words)
    assert damaged.exit_code == 1 and "0.png" in damaged.stderr
    assert max(line.count("0.png") for line in damaged.stderr.splitlines()) == 1
    (pairs / "rain" / "input" / "0.png").unlink()
    beside = CliRunner().invoke(app, [*words, "--onnx", str(write_adding(tmp_path / "brighter.onnx", 20 / 255))])
    assert beside.exit_code == 0, beside.stderr
    # 20 levels too bright become 40, and 40 become 60: 20 log10(20 / 40) and 20 log10(40 / 60) dB.
    told = load_result("restorers", tmp_path / "out").figure(ALL, "brighter.onnx", "PSNR gain, dB")
    assert told.value == pytest.approx((-6.0206 - 3.5218) / 2, abs=1e-3)
    for name, amount in (("bytes.onnx", 255.0), ("nan.onnx", float("nan"))):
        wrong = CliRunner().invoke(app, [*words, "--onnx", str(write_adding(tmp_path / name, amount))])
        assert wrong.exit_code == 2
        assert "only nets that take and give RGB in [0, 1] can be compared" in " ".join(wrong.stderr.split())
    missing = CliRunner().invoke(app, [*words, "--onnx", "nowhere.onnx"])
    assert missing.exit_code == 2
    assert "nowhere.onnx: no such file" in missing.stderr.replace("\n", "")


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_takes_pictures_of_any_size_and_keeps_their_channels(name: str) -> None:
    for size in ((1, 1), (5, 7), (40, 61)):
        picture = torch.rand(3, *size)
        before = picture.clone()
        restored = BASELINES[name](picture)
        assert (restored.shape, restored.dtype) == (picture.shape, torch.float32)
        assert restored.min() >= 0 and restored.max() <= 1
        assert torch.equal(picture, before)
    # A picture that is red on the left and blue on the right stays so, whatever is done to it.
    picture = torch.full((3, 40, 40), 0.2)
    picture[0, :, :20] = picture[2, :, 20:] = 0.8
    restored = BASELINES[name](picture)
    assert restored[:, :, :10].mean((1, 2)).argmax() == 0 and restored[:, :, 30:].mean((1, 2)).argmax() == 2


def test_the_guided_filter_is_that_of_kornia() -> None:
    guide, image = random(40, 50), random(41, 50)[1:]
    expected = guided_blur(torch.from_numpy(guide)[None, None], torch.from_numpy(image)[None, None], 9, 0.01)
    np.testing.assert_allclose(comparison.guided_filter(guide, image, 4, 0.01), expected[0, 0].numpy(), atol=1e-4)


def test_dehazing_by_hand() -> None:
    # Half of the light is lost on the way, air of .8 takes its place: I = (J + .8) / 2. Blue is 0 everywhere in J, so
    # the dark channel of I / .8 is .5, the transmission comes out as 1 - .95 * .5 = .525, and what lies below or above
    # the air is stretched by .5 / .525: J' = .8 + (J - .8) * .5 / .525. Above stands sky, nothing but air.
    scene = random(200, 120, 3) * 0.7
    scene[..., 2] = 0
    scene[:60] = 0.8
    hazy = (scene + 0.8) / 2
    expected = 0.8 + (scene - 0.8) * 0.5 / 0.525
    np.testing.assert_allclose(comparison.dehaze(hazy)[120:], expected[120:], atol=0.02)
    np.testing.assert_allclose(comparison.dehaze(hazy)[:20], 0.8, atol=1e-3)
