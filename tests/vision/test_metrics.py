import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from mofme.core.moe import ObservedRouting
from mofme.core.routing import RoutingDecision
from mofme.errors import ModelError
from mofme.vision.metrics import Lpips, objective, psnr, psnr_loss, rgb_to_y, ssim
from mofme.vision.nets.unet import NetOutput


def pictures(height: int = 40, width: int = 53, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, 3, height, width, generator=generator, dtype=torch.float64)
    return a, (a + 0.1 * torch.randn(a.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def test_psnr_of_a_known_error_and_of_none() -> None:
    # First picture: off by .1 everywhere, mean square .01, so -10 log10(.01) = 20 dB.
    # Second: off by .1 in one channel of three, mean square .01 / 3, so 20 + 10 log10(3) = 24.7712 dB.
    a = torch.full((2, 3, 5, 7), 0.5, dtype=torch.float64)
    b = a.clone()
    b[0] += 0.1
    b[1, 2] -= 0.1
    torch.testing.assert_close(psnr(a, b), torch.tensor([20.0, 24.771213], dtype=torch.float64))
    assert psnr(a, a).tolist() == [float("inf")] * 2
    assert psnr(a.numpy(), b.numpy()).tolist() == psnr(a, b).tolist()  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [slice(0, 3), slice(1, 2)])
def test_ssim_equals_scikit_image(channels: slice) -> None:
    a, b = (picture[:, channels] for picture in pictures())
    assert ssim(a.numpy(), b.numpy()).tolist() == ssim(a, b).tolist()  # type: ignore[arg-type]
    for ours, one, other in zip(ssim(a, b).tolist(), a.numpy(), b.numpy(), strict=True):
        expected = structural_similarity(
            one, other, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert ours == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(*pictures(10, 40))


def test_luma_of_the_corners() -> None:
    corners = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    # MATLAB's rgb2ycbcr of the cube's corners, before rounding.
    found = 255 * rgb_to_y(corners[:, :, None, None]).flatten()
    assert found.tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])


@pytest.fixture(scope="module")
def alexnet() -> nn.Sequential:
    """AlexNet's convolutions, untrained: layers 0, 3, 6, 8, 10 of torchvision's `features`."""
    from torchvision import models  # after mofme, which cures it beside a CPU build of torch

    torch.manual_seed(0)
    return models.alexnet(weights=None).features[:12]


@pytest.fixture(scope="module")
def weights(alexnet: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alexnet") / "features.npz"
    np.savez(path, **{f"features.{name}": tensor.numpy() for name, tensor in alexnet.state_dict().items()})
    return path


@torch.inference_mode()
def test_lpips_is_the_weighted_distance_of_unit_features(alexnet: nn.Sequential, weights: Path) -> None:
    a, b = (picture.float() for picture in pictures(64, 80))
    lpips = Lpips(weights)
    # Zhang et al. 2018, Eq. (1), with the inputs scaled as in their code.
    mean, std = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = ((2 * picture - 1 - mean[:, None, None]) / std[:, None, None] for picture in (a, b))
    expected = torch.zeros(2)
    heads = iter(lpips.net.lins)
    for layer in alexnet:
        x, y = layer(x), layer(y)
        if isinstance(layer, nn.ReLU):
            error = (x / x.norm(dim=1, keepdim=True) - y / y.norm(dim=1, keepdim=True)).square()
            expected += next(heads)(error).mean(dim=(1, 2, 3))
    torch.testing.assert_close(lpips(a, b), expected)
    assert lpips(a, a).tolist() == [0, 0]


def test_lpips_says_what_is_wrong(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    empty, text, cut = tmp_path / "empty.npz", tmp_path / "text.npz", tmp_path / "cut.npz"
    np.savez(empty, other=np.zeros(3))
    text.write_text("not an archive", encoding="utf-8")
    cut.write_bytes(weights.read_bytes()[:100_000])
    for path in (empty, text, cut, tmp_path / "absent.npz"):
        with pytest.raises(ModelError, match=path.name):
            Lpips(path)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        Lpips(weights)(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be downloaded"):
        Lpips()


def grey(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 5)


def routing(weights: list[list[float]]) -> ObservedRouting:
    weights_TE = torch.tensor(weights)
    return ObservedRouting("layer", (len(weights),), RoutingDecision(weights_TE, weights_TE))


def test_psnr_loss_by_hand() -> None:
    # Errors .1 and .03: log10(.01 + .0001) and log10(.0009 + .0001) = -3, halved and averaged.
    loss = psnr_loss(grey(0.6, 0.23), grey(0.5, 0.2))
    assert loss.item() == pytest.approx((math.log10(0.0101) - 3) / 4, rel=1e-4)


def test_naming_the_weather() -> None:
    # A perfect picture, log10(1e-4) / 2 = -2, and logits of 0: .1 * ln 2. A sure and right answer costs nothing.
    clean = grey(0.5)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    unsure = objective(NetOutput(clean, torch.zeros(1, 4)), clean, labels, [])
    sure = objective(NetOutput(clean, 100 * (2 * labels - 1)), clean, labels, [])
    assert unsure.item() == pytest.approx(-2 + 0.1 * math.log(2), rel=1e-5)
    assert sure.item() == pytest.approx(-2, rel=1e-5)


def test_weather_that_nobody_knows_is_not_taught() -> None:
    # Half of the labels are known: ln 2 for each of two, over four. A sure answer for the others costs nothing.
    clean = grey(0.5)
    logits = torch.tensor([[0.0, 0.0, 50.0, -50.0]], requires_grad=True)
    loss = objective(NetOutput(clean, logits), clean, torch.tensor([[1.0, 0.0, torch.nan, torch.nan]]), [])
    assert loss.item() == pytest.approx(-2 + 0.1 * math.log(2) / 2, rel=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[0, 2:].tolist() == [0, 0]


def test_balance_of_experts() -> None:
    # All on one of two experts: importance (2, 0), mean 1, variance 1, so CV^2 = 1; shared evenly: 0. Mean: .5.
    clean = grey(0.5)
    labels = torch.zeros(1, 4)
    output = NetOutput(clean, torch.full((1, 4), -100.0))
    one_sided, even = routing([[1.0, 0.0], [1.0, 0.0]]), routing([[1.0, 0.0], [0.0, 1.0]])
    assert objective(output, clean, labels, [even]).item() == pytest.approx(-2, rel=1e-6)
    assert objective(output, clean, labels, [one_sided, even]).item() == pytest.approx(-2 + 0.5e-3, rel=1e-6)
