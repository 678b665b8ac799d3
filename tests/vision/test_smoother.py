"""The running means of a video."""

import math

import pytest
import torch
from torch import Tensor, nn

from mofme.vision.nets.tone import ToneNet
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restorer, TemporalSmoother
from mofme.vision.weather import WEATHERS


def leaving_all(haze: float) -> RestorationNet:
    """Leaves pictures as they are and sees haze with this probability."""
    net = RestorationNet(widths=(8, 8, 8), blocks=(1, 1, 1), feed_forward="dense")
    last = net.weather[-1]
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    with torch.no_grad():
        last.weight.zero_()
        last.bias[WEATHERS.index("haze")] = math.log(haze / (1 - haze))
    return net


def test_a_mean_moves_by_a_twentieth():
    steady, grey = TemporalSmoother(), torch.full((3, 4, 4), 0.5)
    steady.see(grey)
    assert steady.mean("tone", torch.tensor([1.0])) == 1
    steady.see(grey + 0.05)
    assert steady.mean("tone", torch.tensor([3.0])).item() == pytest.approx(1.1)  # 1 + (3 - 1) / 20
    assert steady.mean("context", torch.tensor([7.0])) == 7  # another name, another mean
    steady.see(grey)
    assert steady.mean("tone", torch.tensor([1.1])).item() == pytest.approx(1.1)


@pytest.mark.parametrize("next_frame", [torch.full((3, 4, 4), 0.8), torch.full((3, 2, 4), 0.5)])
def test_a_cut_begins_anew(next_frame):
    steady = TemporalSmoother()
    steady.see(torch.full((3, 4, 4), 0.5))
    steady.mean("tone", torch.tensor([1.0]))
    steady.see(next_frame)
    assert steady.mean("tone", torch.tensor([3.0])) == 3


class Alternating:
    """Judges 1 of the first frame, -1 of the second, 1 of the third, ..."""

    def __init__(self, *shape: int) -> None:
        self.judged = torch.ones(shape)

    def __call__(self, *_: Tensor) -> Tensor:
        judged, self.judged = self.judged, -self.judged
        return judged


# 1, then .95 + .05 * -1, then .95 * .9 + .05 * 1
CALMED = [1, 0.9, 0.905]


def test_the_tone_of_a_video_is_calmed(monkeypatch):
    torch.manual_seed(0)
    tone, frame = ToneNet().eval(), 0.2 + 0.1 * torch.rand(3, 16, 24)
    monkeypatch.setattr(tone, "forward", Alternating(1, 2, 3))
    restorer, steady = Restorer(leaving_all(haze=0.9), "untrained", tone=tone), TemporalSmoother()
    for mean in CALMED:
        # Half of it is trusted; it is gain and offset both.
        expected = (frame * math.exp(mean / 2) + mean / 2).clamp(0, 1)
        torch.testing.assert_close(restorer(frame, steady=steady).image, expected, atol=0.01, rtol=0)


def test_the_context_of_a_video_is_calmed(monkeypatch):
    net, frame = leaving_all(haze=0.1), torch.rand(3, 16, 24)
    context = net.encode_context(torch.rand(1, 3, 64, 64))
    monkeypatch.setattr(net, "encode_context", Alternating(*context.shape))
    given: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    restorer, steady = Restorer(net, "untrained"), TemporalSmoother()
    for _ in CALMED:
        restorer(frame, steady=steady)
    for context, mean in zip(given, CALMED, strict=True):
        torch.testing.assert_close(context, torch.full_like(context, mean))
