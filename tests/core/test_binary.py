"""Binary weights: gradients, clipping, scaling and packing, against numbers worked out by hand."""

import math
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mofme.core.binary import (
    BinaryConv2d,
    BinaryLinear,
    binarise,
    binary_layers,
    glorot_scale,
    recalibrate,
    sign,
    stochastic_sign,
    unbinarise,
)
from mofme.core.weights import ModelCard, load_as, pack_signs, save_packed, unpack_signs
from mofme.errors import ModelError


def card() -> ModelCard:
    return ModelCard("tiny", "test", {}, "none")


def test_sign_takes_zero_for_plus_and_passes_the_gradient_unchanged() -> None:
    w = torch.tensor([-0.3, 0.0, 0.7], requires_grad=True)
    binary = sign(w)
    # loss = 2 b0 + 3 b1 + 5 b2: dloss/db = (2, 3, 5), which goes to w as it is
    (binary * torch.tensor([2.0, 3.0, 5.0])).sum().backward()
    assert binary.tolist() == [-1, 1, 1]
    assert w.grad is not None and w.grad.tolist() == [2, 3, 5]


@pytest.mark.parametrize("w", [-0.5, 0.0, 0.5])
def test_stochastic_sign_is_plus_as_often_as_the_hard_sigmoid_says(w: float) -> None:
    # +1 in (w + 1) / 2 of the draws: their mean is w, with deviation sqrt(1 - w^2) / 200
    drawn = stochastic_sign(torch.full((40_000,), w), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {-1.0, 1.0}
    assert abs(drawn.mean().item() - w) < 4 * math.sqrt(1 - w * w) / 200


def test_stochastic_sign_is_certain_at_both_ends_and_passes_the_gradient() -> None:
    w = torch.tensor([-1.0, 1.0, -2.0, 3.0], requires_grad=True)
    drawn = stochastic_sign(w)
    drawn.sum().backward()
    assert drawn.tolist() == [-1, 1, -1, 1]
    assert w.grad is not None and w.grad.tolist() == [1, 1, 1, 1]


def test_glorot_scale_by_hand() -> None:
    # fan in 10, fan out 14: 1 / sqrt(1.5 / 24) = 4
    assert glorot_scale(torch.zeros(14, 10)) == pytest.approx(4)
    # a convolution's fans count its 3 x 3 window: (2 + 4) * 9 = 54, 1 / sqrt(1.5 / 54) = 6
    assert glorot_scale(torch.zeros(4, 2, 3, 3)) == pytest.approx(6)


def test_linear_layer_works_with_signs_and_learns_in_real_weights() -> None:
    layer = BinaryLinear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.2, -0.9, 0.1]]))
    x = torch.tensor([[1.0, 2.0, 4.0]])
    y = layer(x)
    y.sum().backward()
    assert y.item() == 1 - 2 + 4
    # the gradient of the binary weight is x, and the input's gradient comes from the signs
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[1, 2, 4]]


def test_convolution_equals_one_with_the_signs_written_out() -> None:
    torch.manual_seed(0)
    layer = BinaryConv2d(2, 3, 3, padding=1, stride=2)
    x = torch.randn(1, 2, 8, 8)
    written_out = nn.functional.conv2d(x, layer.weight.sign(), layer.bias, stride=2, padding=1)
    torch.testing.assert_close(layer(x), written_out)


def test_stochastic_layer_draws_in_training_and_is_fixed_or_real_at_test() -> None:
    torch.manual_seed(0)
    layer = BinaryLinear(64, 8, stochastic=True)
    x = torch.randn(4, 64)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight.sign(), layer.bias))
    layer.real_at_test = True
    torch.testing.assert_close(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_binarise_replaces_what_is_not_kept_and_scales_by_the_mean_magnitude() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -3.0], [0.5, 0.5]]))
        model[0].bias.copy_(torch.tensor([1.0, 2.0]))
    assert binarise(model, keep=lambda name: name == "3") == ["0", "2"]
    assert [name for name, _ in binary_layers(model)] == ["0", "2"]
    # row 0: signs (+, -), mean magnitude 2: 2 * (1 - 10) + 1; row 1: signs (+, +), .5: .5 * 11 + 2
    assert model[0](torch.tensor([1.0, 10.0])).tolist() == [-17, 7.5]
    assert model[0].weight.abs().max() <= 1


def test_ordinary_layers_of_signs_times_scales_compute_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(64, 3)).eval()
    binarise(model)
    x = torch.randn(2, 2, 8, 8)
    before = model(x)
    unbinarise(model)
    assert [type(layer) for layer in model] == [nn.Conv2d, nn.Flatten, nn.Linear]
    torch.testing.assert_close(model(x), before)
    assert not any(layer.training for layer in model)


def test_recalibration_finds_the_mean_and_variance_of_what_passes() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])]
    recalibrate(model, batches)
    # batch means 1 and 5, unbiased variances 2 and 2: plain averages 3 and 2
    assert model[0].running_mean.tolist() == [3]
    assert model[0].running_var.tolist() == [2]
    assert model[0].momentum == 0.1 and model.training


@settings(max_examples=15)
@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4), elements=st.floats(-1, 1, width=32)))
def test_unpacking_gives_the_signs_back(weight: np.ndarray) -> None:
    tensor = torch.from_numpy(weight)
    packed = pack_signs(tensor)
    assert packed.numel() == -(-tensor.numel() // 8)
    assert torch.equal(unpack_signs(packed, tensor.shape), sign(tensor))


def test_packed_nets_come_back_the_same_and_take_a_thirtieth(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(BinaryLinear(512, 512, bias=False), nn.ReLU(), BinaryLinear(512, 512, bias=False)).eval()
    saved = save_packed(tmp_path, card(), model)
    single_precision = 4 * sum(weight.numel() for weight in model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < single_precision / 30
    other, loaded = load_as(
        tmp_path,
        "test",
        lambda: nn.Sequential(BinaryLinear(512, 512, bias=False), nn.ReLU(), BinaryLinear(512, 512, bias=False)),
    )
    assert loaded == saved
    x = torch.randn(3, 512)
    assert torch.equal(model(x), other(x))


def test_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    save_packed(tmp_path, card(), nn.Sequential(BinaryLinear(16, 4)))
    with pytest.raises(ModelError, match="packed signs"):
        load_as(tmp_path, "test", lambda: nn.Sequential(BinaryLinear(32, 4)))
    with pytest.raises(ModelError, match=r"(?s)does not hold.*1\.weight"):
        load_as(tmp_path, "test", lambda: nn.Sequential(nn.Identity(), BinaryLinear(16, 4)))
    with pytest.raises(ModelError, match="does not hold"):
        load_as(tmp_path, "test", lambda: nn.Sequential(BinaryLinear(16, 4, bias=False)))
