import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mofme.core.weights import ModelCard, check_replaceable, load_as, load_card, load_state, read_as, save_model
from mofme.errors import ModelError
from tests.full_disk import room_for

CARD = ModelCard(
    name="tiny",
    net="restoration",
    arguments={"widths": [1, 2], "kind": "mofme"},
    licence="CC BY-NC 4.0",
    training={"data": "Größe, 雨"},
    metrics={"rain": 1.5},
)


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"weight": torch.randn(3, 4, generator=generator), "bias": torch.zeros(3), "count": torch.tensor([7])}


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "tiny"
    card = save_model(folder, CARD, state())
    # 3 * 4 + 3 + 1 numbers.
    assert load_card(folder) == card == dataclasses.replace(CARD, parameters=16, sha256=card.sha256)
    loaded = load_state(folder, card)
    assert loaded.keys() == state().keys()
    for name, tensor in state().items():
        # Half precision keeps 11 bits: to within 2^-11 of the value.
        torch.testing.assert_close(loaded[name], tensor, rtol=2**-11, atol=0)
        assert loaded[name].dtype == tensor.dtype
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "model.safetensors"]
    weights = folder / "model.safetensors"
    assert load_file(weights)["weight"].dtype == torch.float16
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card.sha256


def test_parameters_that_share_or_stride_memory_are_saved(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    save_model(tmp_path, CARD, {"transposed": matrix.T, "whole": matrix.long().T})
    loaded = load_state(tmp_path, load_card(tmp_path))
    assert loaded["transposed"].tolist() == loaded["whole"].tolist() == matrix.T.tolist()


def test_damaged_and_missing_weights_are_refused(tmp_path: Path) -> None:
    card = save_model(tmp_path, CARD, state())
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:-10], bytes([content[0] ^ 1]) + content[1:], content[:-1] + bytes([content[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
            load_state(tmp_path, card)
    # Of no weights at all, though the checksum fits.
    weights.write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match=r"model\.safetensors holds no weights"):
        load_state(tmp_path, dataclasses.replace(card, sha256=hashlib.sha256(b"no weights at all").hexdigest()))
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        load_state(tmp_path, card)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"text"', b"null", b"{}", b'{"name": "x"}', b"\xff\xfe\x00", b'{"surprise": 1}']
)
def test_what_is_no_card_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match=r"card\.json is missing"):
        load_card(tmp_path)
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"card\.json is not"):
        load_card(tmp_path)


def test_numbers_beyond_half_precision_stay_in_single(tmp_path: Path) -> None:
    save_model(tmp_path, CARD, {"within": torch.tensor([65504.0, -65504.0]), "beyond": torch.tensor([1.0, -1e6])})
    loaded = load_state(tmp_path, load_card(tmp_path))
    assert (loaded["within"].tolist(), loaded["beyond"].tolist()) == ([65504, -65504], [1, -1e6])
    stored = load_file(tmp_path / "model.safetensors")
    assert (stored["within"].dtype, stored["beyond"].dtype) == (torch.float16, torch.float32)


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_what_is_not_finite_is_refused_and_what_was_there_stays(tmp_path: Path, number: float) -> None:
    kept = save_model(tmp_path, CARD, state())
    with pytest.raises(ModelError, match="weight holds numbers that are not finite"):
        save_model(tmp_path, CARD, {"weight": torch.tensor([1.0, number])})
    assert load_card(tmp_path) == kept
    assert load_state(tmp_path, kept).keys() == state().keys()


@pytest.mark.parametrize(("numbers", "words"), [(1_000, 1), (1, 1_000)])  # no room for the weights; for the card
def test_on_a_full_disk_the_earlier_model_stays(tmp_path: Path, numbers: int, words: int) -> None:
    kept = save_model(tmp_path, CARD, state())
    card = ModelCard("new", "restoration", {}, "none", {"note": words * "long"})
    with room_for(1_500), pytest.raises(OSError, match="File too large"):
        save_model(tmp_path, card, {"weight": torch.ones(numbers)})
    assert load_card(tmp_path) == kept
    assert load_state(tmp_path, kept).keys() == state().keys()
    assert len(list(tmp_path.iterdir())) == 2


def saved_layer(folder: Path) -> nn.Linear:
    layer = nn.Linear(2, 3)
    save_model(folder, ModelCard("layer", "linear", {"wide": 3}, "none"), layer.state_dict())
    return layer


def test_a_model_is_built_from_its_card_and_filled(tmp_path: Path) -> None:
    layer = saved_layer(tmp_path)
    loaded, card = load_as(tmp_path, "linear", lambda wide: nn.Sequential(nn.Linear(2, wide))[0])
    assert (card.name, loaded.training) == ("layer", False)
    torch.testing.assert_close(loaded.weight, layer.weight, rtol=2**-11, atol=0)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    saved_layer(tmp_path)
    for load in (load_as, read_as):
        with pytest.raises(ModelError, match=rf"{tmp_path} holds a model of another kind: linear, not conv; name"):
            load(tmp_path, "conv", lambda *_: nn.Identity())
    with pytest.raises(ModelError, match=rf"{tmp_path} holds a 'linear' model, which would be replaced"):
        check_replaceable(tmp_path, "conv")
    check_replaceable(tmp_path, "linear")


@pytest.mark.parametrize(
    "build",
    [
        lambda wide: nn.Linear(2, wide, bias=False),  # more in the file than in the model
        lambda wide: nn.Sequential(nn.Linear(2, wide)),  # other names
        lambda wide: nn.Linear(2, wide + 1),  # another shape
        lambda narrow: nn.Linear(2, narrow),  # other arguments
    ],
)
def test_a_model_that_does_not_fit_its_card_is_refused_with_a_remedy(tmp_path: Path, build: Any) -> None:
    saved_layer(tmp_path)
    with pytest.raises(ModelError, match=rf"(?s){tmp_path} does not hold what its card says: .*; download it again"):
        load_as(tmp_path, "linear", build)
