"""Digits from a file and from drawings; nets on disk: the same function without batch norm, packed, and back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError, PictureError, TableError
from mofme.papers.binaryconnect.net import ARMS, DigitNet, Mnist, as_digit, folded, ink_of, load_digit_net, load_mnist
from mofme.papers.binaryconnect.training import Plan, pack_run, predictions, recalibrated, train


@pytest.mark.parametrize("arm", ARMS)
def test_folding_keeps_the_function(mnist: Mnist, arm: str) -> None:
    torch.manual_seed(0)
    net = recalibrated(DigitNet(arm, 32), mnist.training)
    net.use_real_weights(False)
    for layer in net:
        if isinstance(layer, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(layer.weight)  # signs of both kinds
            torch.nn.init.normal_(layer.bias)
    x = mnist.test.inputs_ND()
    torch.testing.assert_close(folded(net)(x), net(x), rtol=1e-4, atol=1e-4)
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in folded(net))


def test_a_run_is_packed_with_its_errors(mnist: Mnist, tmp_path: Path) -> None:
    plan = Plan("deterministic", epochs=8, batch=50, width=64)
    train(plan, mnist, tmp_path, lambda line: None)
    card = pack_run(tmp_path / "deterministic-0", mnist, tmp_path / "packed", "none")
    net, _ = load_digit_net(tmp_path / "packed")
    wrong = (predictions(net, mnist.test) != mnist.test.labels_N).sum().item()
    assert card.metrics["test error, %"] == pytest.approx(wrong)  # of 100 digits
    assert wrong < 20
    assert card.training["epochs"] == 8


def test_what_a_stopped_run_has_learned_is_packed_and_said(mnist: Mnist, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Plan("float", epochs=2, batch=50, width=8), mnist, tmp_path, stop)
    card = pack_run(tmp_path / "float-0", mnist, tmp_path / "packed", "none")
    assert (card.training["epochs"], card.training["planned_epochs"]) == (1, 2)


def test_a_net_is_never_packed_over_a_model_of_another_kind(mnist: Mnist, tmp_path: Path) -> None:
    train(Plan("float", epochs=1, batch=50, width=8), mnist, tmp_path, lambda line: None)
    kept = save_model(tmp_path / "small", ModelCard("small", "restoration", {}, "none"), {"x": torch.zeros(1)})
    with pytest.raises(ModelError, match="small holds a 'restoration' model"):
        pack_run(tmp_path / "float-0", mnist, tmp_path / "small", "none")
    assert load_card(tmp_path / "small") == kept
    for _ in range(2):  # its own kind is replaced
        pack_run(tmp_path / "float-0", mnist, tmp_path / "packed", "none")


def test_the_last_digits_are_held_back_and_pixels_go_from_0_to_1(digits_file: Path) -> None:
    mnist = load_mnist(digits_file, held_back=100)
    assert [len(part) for part in (mnist.training, mnist.validation, mnist.test)] == [200, 100, 100]
    with np.load(digits_file) as file:
        expected = file["train_x"][200].reshape(-1) / 255
        assert mnist.validation.labels_N[0] == file["train_y"][200]
    np.testing.assert_allclose(mnist.validation.inputs_ND()[0].numpy(), expected, rtol=1e-6)


def save(path: Path, **changed: np.ndarray) -> Path:
    parts = {"train_x": np.zeros((4, 28, 28), np.uint8), "train_y": np.zeros(4, np.uint8)}
    parts |= {"test_x": np.zeros((2, 28, 28), np.uint8), "test_y": np.zeros(2, np.uint8)}
    np.savez(path, **(parts | changed))
    return path


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train_x": np.zeros((4, 28, 28))}, "float64"),
        ({"test_x": np.zeros((3, 28, 28), np.uint8)}, r"\(3, 28, 28\), not uint8 \(2, 28, 28\)"),
        ({"test_y": np.full(2, 10, np.uint8)}, "not from 0 to 9"),
        ({"train_y": np.zeros((4, 1), np.uint8)}, r"labels are uint8 \(4, 1\)"),
        ({"test_y": np.full(2, np.nan)}, r"labels are float64 \(2,\)"),
        ({"test_y": np.uint8(3)}, r"labels are uint8 \(\)"),
        ({"test_x": np.zeros((0, 28, 28), np.uint8), "test_y": np.zeros(0, np.uint8)}, "none to test with"),
        ({}, "more than 4 are needed"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, changed: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(TableError, match=words):
        load_mnist(save(tmp_path / "digits.npz", **changed), held_back=4)


def test_files_that_are_missing_damaged_or_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.npz"
    with pytest.raises(TableError, match="missing"):
        load_mnist(path)
    np.savez_compressed(path, train_x=np.random.default_rng(0).integers(0, 255, (9, 28, 28), np.uint8))
    content = path.read_bytes()
    with pytest.raises(TableError, match="train_y"):
        load_mnist(path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    single = (tmp_path / "single.npy").read_bytes()
    for damaged in (content[:200] + b"\xff" * 30 + content[230:], single, b"no archive", b""):
        path.write_bytes(damaged)
        with pytest.raises(TableError, match="no digits") as raised:
            load_mnist(path)
        assert "allow_pickle" not in str(raised.value)  # nobody is advised to unpickle


def test_a_bar_is_cut_out_scaled_and_centred() -> None:
    ink = torch.zeros(280, 280)
    ink[10:210, 30:70] = 0.8  # 200 x 40 becomes 20 x 4, rows 4 to 23, columns 12 to 15
    digit = as_digit(ink).view(28, 28)
    expected = torch.zeros(28, 28)
    expected[4:24, 12:16] = 1
    torch.testing.assert_close(digit, expected)


def test_the_centre_of_mass_is_in_the_middle() -> None:
    ink = torch.zeros(100, 100)
    ink[0:20, 0:40] = 1  # an L upside down: a bar of 20 x 40 above, one of 60 x 20 below it on the left
    ink[20:80, 0:20] = 1
    rows, columns = as_digit(ink).view(28, 28).sum(1), as_digit(ink).view(28, 28).sum(0)
    middles = [(mass * torch.arange(28)).sum() / mass.sum() for mass in (rows, columns)]
    assert all(abs(middle - 13.5) <= 0.5 for middle in middles)


def test_ink_is_what_differs_from_the_border() -> None:
    dark = torch.ones(3, 8, 8)
    dark[:, 3:5, 3:5] = 0
    assert torch.equal(ink_of(dark), ink_of(1 - dark))
    assert ink_of(dark).sum() == 4


@pytest.mark.parametrize("ink", [torch.zeros(10, 10), torch.full((10, 10), 0.1), torch.zeros(0, 0)])
def test_nothing_drawn_is_told(ink: torch.Tensor) -> None:
    with pytest.raises(PictureError, match="Nothing is drawn"):
        as_digit(ink)
