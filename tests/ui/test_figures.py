import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mofme.ui.figures import expert_figures, heat_map, save_picture, telling_layer, thumbnail, uncertainty_figure
from mofme.vision.restorer import RoutingMap


@given(st.integers(1, 300), st.integers(1, 300))
def test_thumbnails_fit_and_keep_small_pictures(height: int, width: int) -> None:
    small = thumbnail(torch.rand(3, height, width), side=100)
    if max(height, width) <= 100:
        assert small.shape == (3, height, width)
    else:
        assert max(small.shape[1:]) == 100
        assert min(small.shape[1:]) == pytest.approx(max(1, min(height, width) * 100 / max(height, width)), abs=0.5)


def test_heat_map_is_the_grey_photo_where_nothing_happened_and_coloured_where_much_did() -> None:
    rgb = torch.tensor([1.0, 0.5, 0.0])[:, None, None].expand(3, 8, 8)
    left, right = torch.zeros(8, 4), torch.ones(8, 4)
    pixels = np.asarray(heat_map(rgb, torch.cat([left, right], dim=1))).astype(int)
    assert np.ptp(pixels[:, 0], axis=-1).max() == 0
    red, _, blue = pixels[4, 7]
    assert red > blue + 50


def test_one_heat_map_for_each_expert_that_worked_the_busiest_first(tmp_path: Path) -> None:
    # Of 4 places, expert 2 has 3, expert 1 has 1 and expert 3 none.
    weights = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    figures = expert_figures(torch.rand(3, 16, 16), RoutingMap("layer", weights), tmp_path)
    assert [caption for _, caption in figures] == ["Expert 2 · 75 % of the picture", "Expert 1 · 25 % of the picture"]
    assert len({path for path, _ in figures}) == 2


def test_the_layer_that_divides_the_picture_most_is_shown() -> None:
    even = RoutingMap("even", torch.full((2, 2, 2), 0.5))
    split = RoutingMap("split", torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]]))
    assert telling_layer((even, split)).layer == "split"


def test_legend_of_the_uncertainty_names_its_range(tmp_path: Path) -> None:
    path, legend = uncertainty_figure(torch.rand(3, 8, 8), torch.tensor([[0.1, 0.3], [0.2, 0.45]]), tmp_path)
    assert path.exists()
    assert "0.10" in legend
    assert "0.45" in legend


def test_a_picture_that_does_not_fit_on_the_disk_leaves_no_half_of_it(tmp_path: Path) -> None:
    noise = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError):
            save_picture(noise, tmp_path / "small.jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "small.jpg").exists()
