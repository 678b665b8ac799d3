import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mofme.core.model_card import CARD_FILE, WEIGHTS_FILE, ModelCard, save_model
from mofme.errors import ModelError
from mofme.vision.models import SIZES, available_models, build_net, load_net
from mofme.vision.nets.unet import RestorationNet

TINY: dict[str, Any] = {"widths": [8, 8, 8], "blocks": [1, 1, 1], "feed_forward": "mofme", "num_experts": 4}


def save(folder: Path, net: str = "restoration", arguments: dict[str, Any] = TINY) -> RestorationNet:
    torch.manual_seed(0)
    built = RestorationNet(**TINY)
    save_model(folder, ModelCard(folder.name, net, arguments, "CC0"), built.state_dict())
    return built


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_built_from_what_a_card_can_hold(size: str) -> None:
    assert json.loads(json.dumps(SIZES[size])) == SIZES[size]
    restored = build_net(size)(torch.rand(1, 3, 16, 16)).image
    assert restored.shape == (1, 3, 16, 16)


def test_base_is_larger_than_small() -> None:
    small, base = (sum(p.numel() for p in build_net(size).parameters()) for size in ("small", "base"))
    assert base > 2 * small


def test_an_unknown_size_names_the_sizes_there_are() -> None:
    with pytest.raises(ModelError, match=r"'huge'.*small, base"):
        build_net("huge")


def test_a_saved_net_is_loaded_by_its_folder(tmp_path: Path) -> None:
    saved = save(tmp_path / "mine")
    net, card = load_net(str(tmp_path / "mine"))
    assert card.name == "mine"
    assert not net.training
    for name, tensor in saved.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)  # kept in half precision


def test_available_models_restore_pictures_and_are_sorted(tmp_path: Path) -> None:
    save(tmp_path / "b")
    save(tmp_path / "a")
    save(tmp_path / "c", net="router")
    (tmp_path / "no model").mkdir()
    assert [card.name for card in available_models(tmp_path)] == ["a", "b"]
    assert available_models(tmp_path / "nowhere") == []


def test_an_unknown_name_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"'nobody'.*folder that `train` wrote"):
        load_net("nobody")


def test_a_net_that_does_something_else_is_refused(tmp_path: Path) -> None:
    save(tmp_path, net="router")
    with pytest.raises(ModelError, match="'router'"):
        load_net(str(tmp_path))


def test_weights_that_do_not_fit_the_card(tmp_path: Path) -> None:
    save(tmp_path, arguments={**TINY, "widths": [8, 8, 16]})
    with pytest.raises(ModelError, match="do not fit"):
        load_net(str(tmp_path))


def test_damaged_and_missing_weights(tmp_path: Path) -> None:
    save(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        load_net(str(tmp_path))
    weights.unlink()
    with pytest.raises(ModelError, match="missing"):
        load_net(str(tmp_path))


@pytest.mark.parametrize("argument", [{"colours": 3}, {"feed_forward": "sparse"}, {"widths": [8, 8]}])
def test_cards_of_another_version(tmp_path: Path, argument: dict[str, Any]) -> None:
    save(tmp_path, arguments={**TINY, **argument})
    with pytest.raises(ModelError, match="do not fit"):
        load_net(str(tmp_path))


def test_a_damaged_card(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / CARD_FILE).write_text("{")
    with pytest.raises(ModelError, match=r"card\.json"):
        load_net(str(tmp_path))


def test_what_is_shipped_can_be_loaded() -> None:
    for card in available_models():
        net, loaded = load_net(card.name)
        assert loaded == card
        assert sum(p.numel() for p in net.parameters()) == card.parameters
