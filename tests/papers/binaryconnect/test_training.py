"""Training binary nets: the loss and the update by hand, stopping and going on, and that they learn."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mofme.core.binary import binary_layers
from mofme.errors import Cancelled, ModelError, TableError
from mofme.papers.binaryconnect.net import ARMS, BINARY, DigitNet, Mnist, squared_hinge
from mofme.papers.binaryconnect.training import STATE, Plan, error_of, load_run, recalibrated, train


def silent(_: str) -> None:
    pass


def plan(arm: str, epochs: int = 8) -> Plan:
    return Plan(arm, epochs=epochs, batch=50, width=64)


def test_squared_hinge_by_hand() -> None:
    # class 1 of 3: targets (-1, 1, -1), margins 1 - t y = (1 + .5, 1 - .25, 1 - 2): squares 2.25, .5625, 0
    scores = torch.tensor([[0.5, 0.25, -2.0]])
    assert squared_hinge(scores, torch.tensor([1])).item() == pytest.approx((2.25 + 0.5625) / 3)


def test_the_net_is_the_papers() -> None:
    net = DigitNet("deterministic")
    # 784 x 1024 + 1024 x 1024 x 2 + 1024 x 10
    assert sum(layer.weight.numel() for _, layer in binary_layers(net)) == 2_910_208
    assert all(layer.bias is None for _, layer in binary_layers(net))


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_learns(mnist: Mnist, tmp_path: Path, arm: str) -> None:
    draws = torch.get_rng_state()
    run = train(plan(arm), mnist, tmp_path, silent)
    assert torch.equal(torch.get_rng_state(), draws)
    assert run.complete and run.best_error < 0.2  # guessing errs in .9
    lines: list[str] = []
    train(plan(arm), mnist, tmp_path, lines.append)
    assert lines == []  # a complete run is left alone
    again, net = load_run(tmp_path / f"{arm}-0" / STATE)
    assert again == run
    # what is kept is the net of the best epoch, tried then in half precision
    assert error_of(recalibrated(net, mnist.training), mnist.validation) == pytest.approx(run.best_error, abs=0.03)


@pytest.mark.parametrize("arm", BINARY)
def test_real_weights_move_by_the_scaled_rate_and_stay_inside_the_clip(mnist: Mnist, tmp_path: Path, arm: str) -> None:
    torch.manual_seed(0)
    before = DigitNet(arm, 32)[0].weight
    train(Plan(arm, epochs=1, batch=200, learning_rate=1e-3, width=32), mnist, tmp_path, silent)
    after = load_run(tmp_path / f"{arm}-0" / STATE)[1][0].weight
    # ADAM's first step is the rate, whatever the gradient: 1e-3 / sqrt(1.5 / (784 + 32)) = .02332, unless clipped
    step = (after - before).abs()
    assert step.median().item() == pytest.approx(0.02332, rel=1e-3)
    assert step.max() < 0.0234 and after.abs().max() == 1


def test_a_stopped_run_goes_on_as_if_it_had_not_been(mnist: Mnist, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if "epoch 2 of" in line:
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        train(plan("stochastic", 4), mnist, tmp_path / "stopped", stop)
    resumed = train(plan("stochastic", 4), mnist, tmp_path / "stopped", silent)
    unbroken = train(plan("stochastic", 4), mnist, tmp_path / "unbroken", silent)
    assert resumed.curve == unbroken.curve and len(unbroken.curve) == 4
    states = [load_run(tmp_path / name / "stochastic-0" / STATE)[1].state_dict() for name in ("stopped", "unbroken")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_runs_of_another_plan_and_damaged_ones_are_refused(mnist: Mnist, tmp_path: Path) -> None:
    train(plan("float", 1), mnist, tmp_path, silent)
    with pytest.raises(ModelError, match="another folder"):
        train(plan("float", 2), mnist, tmp_path, silent)
    (tmp_path / "float-0" / STATE).write_text("nothing")
    with pytest.raises(ModelError, match="holds no run"):
        load_run(tmp_path / "float-0" / STATE)
    with pytest.raises(ModelError, match="train that arm"):
        load_run(tmp_path / "dropout-0" / STATE)
    with pytest.raises(ModelError, match="deterministic"):
        plan("ternary")
    with pytest.raises(TableError, match="200 digits to train on do not fill a batch of 201"):
        train(Plan("float", batch=201, width=8), mnist, tmp_path, silent)


@pytest.mark.parametrize("part", ["best.", "net."])
def test_a_run_that_lacks_a_tensor_is_named(mnist: Mnist, tmp_path: Path, part: str) -> None:
    train(plan("float", 1), mnist, tmp_path, silent)
    path = tmp_path / "float-0" / STATE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({name: t for name, t in load_file(path).items() if name != f"{part}0.weight"}, path, metadata)
    with pytest.raises(ModelError, match="does not hold the net") as told:
        if part == "best.":
            load_run(path)
        else:
            train(plan("float", 1), mnist, tmp_path, silent)
    assert str(path) in str(told.value)
