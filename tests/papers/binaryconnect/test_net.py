"""Nets on disk: the same function without batch normalisation, packed, and back."""

from pathlib import Path

import pytest
import torch

from mofme.core.weights import ModelCard, load_card, save_model
from mofme.errors import ModelError
from mofme.papers.binaryconnect.data import Mnist
from mofme.papers.binaryconnect.net import ARMS, DigitNet, folded, load_digit_net
from mofme.papers.binaryconnect.training import Plan, Run, pack_run, predictions, recalibrated, save_digit_net, train


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


def test_the_papers_net_takes_a_thirtieth_and_answers_the_same(mnist: Mnist, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = recalibrated(DigitNet("deterministic"), mnist.training)
    save_digit_net(tmp_path, net, Run(Plan("deterministic")), "none", {})
    loaded, card = load_digit_net(tmp_path)
    numbers = sum(tensor.numel() for tensor in net.state_dict().values())
    assert (tmp_path / "model.safetensors").stat().st_size <= 4 * numbers / 30
    assert card.arguments == {"arm": "deterministic", "width": 1024}
    assert torch.equal(predictions(loaded, mnist.test), predictions(net, mnist.test))


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
