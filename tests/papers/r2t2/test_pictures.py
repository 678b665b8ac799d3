import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import ExifTags, Image
from torch import Tensor

from mofme.core import rerouting
from mofme.core.moe import observe_routing
from mofme.core.rerouting import Neighbours, nearest, routing_of
from mofme.core.weights import checksum
from mofme.errors import ModelError, MofmeError
from mofme.papers.r2t2 import building, picture_experiment, tab
from mofme.papers.r2t2.building import Sample, build, choose, for_tuning, own_step, photographs, samples
from mofme.papers.r2t2.picture_experiment import ALL, BASE, CROPS, ORACLE, WHOLE, as_result, measure
from mofme.papers.r2t2.references import METHODS, Choices, Method, References
from mofme.papers.r2t2.rerouter import Rerouted, Rerouter, explain, find, observed, pairs_loss
from mofme.ui.models import Engine, Services
from mofme.vision.datasets import held_back
from mofme.vision.metrics import psnr_loss
from mofme.vision.nets.unet import RestorationNet
from mofme.vision.restorer import Restorer
from tests.ui.one_tab import one_tab

HELD = [f"p{number}" for number in range(100) if held_back(Path(f"p{number}.png"))][:2]
R = 4 * 3  # experts times layers: one block at 1/4, one at 1/8, one at 1/4


@pytest.fixture
def restorer() -> Restorer:
    torch.manual_seed(0)
    net = RestorationNet(widths=(8, 8, 8), blocks=(1, 1, 1), num_experts=4)
    torch.nn.init.normal_(net.head.weight, std=0.05)  # an untrained net would return its input
    return Restorer(net, "tiny")


@pytest.fixture
def references(restorer: Restorer) -> References:
    generator = torch.Generator().manual_seed(0)
    clean_NCHW = torch.randint(256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return References(
        model="tiny",
        model_sha256=checksum(restorer.net.state_dict()),
        embedding_ND=torch.randn(8, 16, generator=generator),
        routing_NR=torch.randn(8, R, generator=generator),
        step_NR=0.1 * torch.randn(8, R, generator=generator),
        kind_N=torch.arange(8) % 5,
        gain_N=torch.arange(8.0),
        weathered_NCHW=clean_NCHW.flip(0),
        clean_NCHW=clean_NCHW,
    )


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops of 32 pixels, three steps of descent and one kind of weather: a fraction of the time, the same arms."""
    monkeypatch.setattr(picture_experiment, "TEST_CROP", 32)
    monkeypatch.setattr(picture_experiment, "KINDS", ("rain",))
    monkeypatch.setattr(rerouting, "descend", partial(rerouting.descend, steps=3))


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(3, 40, 24, generator=torch.Generator().manual_seed(1))


def test_the_embedding_is_mean_and_spread_of_the_encoders_features(restorer: Restorer, picture: Tensor) -> None:
    features = []
    handle = restorer.net.to_eighth.register_forward_hook(lambda _, __, y: features.append(y[0].flatten(1)))
    with observed(restorer.net) as seen:
        restorer(picture)
    handle.remove()
    expected = torch.cat([features[0].float().mean(1), features[0].float().std(1, correction=0)])
    torch.testing.assert_close(seen.embedding_D, expected)
    torch.testing.assert_close(seen.routing_R, routing_of(restorer.net, lambda: restorer(picture)))


def test_every_tile_is_shifted_by_the_same(restorer: Restorer, references: References, picture: Tensor) -> None:
    """Otherwise seams would show where tiles meet."""
    first = "encoder_quarter.0.1.layer"
    seen: list[Tensor] = []
    experts = restorer.net.get_submodule(f"{first}.experts")
    handle = experts.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    result = explain(restorer, picture, "stored steps", references, tile=16)
    handle.remove()
    before, after = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    shift_E = result.after[first] - result.before[first]
    assert len(before) == len(after) > 1 and shift_E.norm() > 0
    for own_TE, moved_TE in zip(before, after, strict=True):
        torch.testing.assert_close(moved_TE, own_TE + shift_E)


@pytest.mark.parametrize("method", METHODS)
def test_the_picture_is_restored_by_the_routing_that_is_shown(
    restorer: Restorer, references: References, picture: Tensor, method: Method
) -> None:
    result = explain(restorer, picture, method, references)
    torch.testing.assert_close(result.plain.image, restorer(picture).image)
    assert not torch.allclose(result.restoration.image, result.plain.image)
    before, after = (torch.cat(list(part.values())) for part in (result.before, result.after))
    assert result.moved == pytest.approx(((after - before).norm() / before.norm()).item())
    assert [weights_E.shape for weights_E in result.target.values()] == [(4,)] * 3
    assert sum(neighbour.weight for neighbour in result.neighbours) == pytest.approx(1)
    assert result.seconds >= result.extra_seconds > 0


def test_what_is_shown_and_told_to_programs(restorer: Restorer, references: References, picture: Tensor) -> None:
    found = explain(restorer, picture, "stored steps", references)
    photo = tab.ReroutedPhoto(found, Path(), Path(), Path(), 1.2, 7.3, ("a note",))
    page = tab.summary_html(photo) + tab.neighbours_html(found) + tab.routing_html(found)
    for part in (f"moved by <b>{100 * found.moved:.1f} %", "by 7 where it changed most", "a note", "1 encoder quarter"):
        assert part in page
    assert page.count("dB</td>") == len(found.neighbours) == 5
    values = json.loads(json.dumps(tab.rerouted_values(photo)))
    assert [near["weight"] for near in values["neighbours"]] == [near.weight for near in found.neighbours]
    assert [len(weights) for weights in values["after"].values()] == [4, 4, 4]
    assert "stayed the same" in tab.summary_html(replace(photo, most_changed=0.2))


@pytest.mark.parametrize("name", ["holiday.jpg", "holiday.tif"])
def test_programs_get_what_they_upload_as_a_png_with_its_report(
    restorer: Restorer, references: References, folders: None, tmp_path: Path, name: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (24, 40), dtype=np.uint16)
    photo = Image.fromarray(pixels) if name.endswith("tif") else Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "A camera"
    photo.save(tmp_path / name, exif=exif)
    services = Services(Engine(["tiny"], lambda _: restorer))
    with one_tab(lambda: tab.build(services, lambda: references)) as address:
        client = Client(address, verbose=False, download_files=tmp_path / "got")
        rerouted, report = client.predict(handle_file(tmp_path / name), method="stored steps", api_name="/reroute")
        (tmp_path / "note.jpg").write_bytes(b"no picture")
        with pytest.raises(AppError, match=r"note\.jpg: .* picture"):
            client.predict(handle_file(tmp_path / "note.jpg"), api_name="/reroute")
        client.close()
    with Image.open(rerouted) as image:
        assert (Path(rerouted).name, image.format, image.size) == ("holiday-rerouted.png", "PNG", (40, 24))
        assert image.mode == ("I;16" if name.endswith("tif") else "RGB")
        assert image.getexif()[ExifTags.Base.Make] == "A camera"
    assert report["method"] == "stored steps" and len(report["neighbours"]) == 5
    assert report["before"].keys() == report["after"].keys() and report["moved"] > 0


def test_steps_are_taken_as_the_kernel_weighs_them(restorer: Restorer, references: References, picture: Tensor) -> None:
    with observed(restorer.net) as seen:
        restorer(picture)
    near = Neighbours(torch.tensor([2, 5]), torch.tensor([0.25, 0.75]))
    half = replace(references, choices=Choices("stored steps", stride=0.5))
    found = find(restorer.net, seen, half, "stored steps", near)
    steps = 0.25 * references.step_NR[2] + 0.75 * references.step_NR[5]
    torch.testing.assert_close(found.routing_R, seen.routing_R + steps / 2)
    own = replace(references, choices=Choices("kernel regression", own=0.9))
    found = find(restorer.net, seen, own, "kernel regression", near)
    mean = 0.25 * references.routing_NR[2] + 0.75 * references.routing_NR[5]
    torch.testing.assert_close(found.routing_R, 0.9 * seen.routing_R + 0.1 * mean)


def test_neighbours_are_near_in_units_of_the_spread(references: References) -> None:
    wide = replace(references, embedding_ND=references.embedding_ND * torch.tensor([1000.0, *[1.0] * 15]))
    place = references.embedding_ND[3] + 0.01
    scaled = wide.embedding_ND[3] + torch.tensor([10.0, *[0.01] * 15])
    assert wide.near(scaled, 4).index_k.tolist() == references.near(place, 4).index_k.tolist()
    assert references.near(place, 4).index_k[0] == 3
    z_ND = (references.embedding_ND - references.embedding_ND.mean(0)) / references.embedding_ND.std(0)
    expected = nearest((place - references.embedding_ND.mean(0)) / references.embedding_ND.std(0), z_ND, 4)
    torch.testing.assert_close(references.near(place, 4).kernel_k, expected.kernel_k)


def test_the_loss_of_several_pairs_is_that_of_each_on_its_own(restorer: Restorer) -> None:
    x, y = torch.rand(2, 3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    share = torch.tensor([0.2, 0.3, 0.5])
    routing = torch.rand(R)
    each = [pairs_loss(restorer.net, x[i : i + 1], y[i : i + 1], torch.ones(1))(routing) for i in range(3)]
    together = pairs_loss(restorer.net, x, y, share)(routing)
    assert together.item() == pytest.approx(sum(w * one.item() for w, one in zip(share.tolist(), each, strict=True)))


def test_the_oracle_lowers_the_loss_it_knows(restorer: Restorer) -> None:
    weathered, clean = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    one = Sample(restorer, "rain", weathered, clean)
    loss_of = pairs_loss(restorer.net, weathered[None], clean[None], torch.ones(1))
    with torch.no_grad():
        before, after = loss_of(one.seen.routing_R), loss_of(one.seen.routing_R + own_step(restorer, one))
    assert after < before
    assert before.item() == pytest.approx(psnr_loss(one.restored[None], clean[None]).item(), abs=0.05)


def test_nothing_is_left_changed(restorer: Restorer, references: References, picture: Tensor) -> None:
    before = {name: value.clone() for name, value in restorer.net.state_dict().items()}
    learning = [parameter.requires_grad for parameter in restorer.net.parameters()]
    own = restorer(picture).image
    for method in METHODS:
        explain(restorer, picture, method, references)
        assert torch.equal(restorer(picture).image, own)
    assert all(torch.equal(value, before[name]) for name, value in restorer.net.state_dict().items())
    assert [parameter.requires_grad for parameter in restorer.net.parameters()] == learning
    assert all(parameter.grad is None for parameter in restorer.net.parameters())
    assert not any(module._forward_hooks for module in restorer.net.modules())
    with observe_routing(restorer.net) as routing:
        restorer(picture)
    assert len(routing) == 3


def test_it_stands_in_for_a_restorer(restorer: Restorer, references: References, picture: Tensor) -> None:
    results, told, own = list[Rerouted](), list[float](), restorer(picture).image
    rerouter = Rerouter(restorer, replace(references, choices=Choices("mode finding")), report=results.append)
    image = rerouter(picture, strength=0.5, tile=16, on_progress=told.append).image
    assert torch.equal(image, results[0].restoration.image)
    assert results[0].method == "mode finding"
    assert told == sorted(told) and told[-1] == 1  # once from start to end

    def stop(share: float) -> None:
        if share > 0.5:
            raise MofmeError("stopped")

    with pytest.raises(MofmeError, match="stopped"):
        rerouter(picture, on_progress=stop)
    assert torch.equal(restorer(picture).image, own)


def test_references_that_do_not_serve_are_refused(restorer: Restorer, references: References, picture: Tensor) -> None:
    with pytest.raises(ModelError, match="--pairs"):
        explain(restorer, picture, "gradient descent", replace(references, weathered_NCHW=None, clean_NCHW=None))
    with torch.no_grad():
        restorer.net.head.bias.add_(1)
    with pytest.raises(ModelError, match="build-references"):
        Rerouter(restorer, references)


def test_saved_and_loaded(references: References, tmp_path: Path) -> None:
    chosen = replace(references, choices=Choices("mode finding", k=3), others=(Choices("stored steps", stride=0.5),))
    chosen.save(tmp_path / "set", "free", {"data": "noise"})
    loaded = References.load(tmp_path / "set")
    assert (loaded.choices, loaded.others, loaded.model_sha256) == (chosen.choices, chosen.others, chosen.model_sha256)
    assert loaded.best("stored steps").stride == 0.5
    assert loaded.best("gradient descent") == Choices("gradient descent")
    for name in ("embedding_ND", "routing_NR", "step_NR", "gain_N"):
        torch.testing.assert_close(getattr(loaded, name), getattr(references, name), atol=2e-3, rtol=1e-3)
    assert references.clean_NCHW is not None and loaded.clean_NCHW is not None
    assert torch.equal(loaded.clean_NCHW, references.clean_NCHW)
    assert torch.equal(loaded.kind_N, references.kind_N)
    replace(references, clean_NCHW=None, weathered_NCHW=None).save(tmp_path / "light", "free", {})
    assert References.load(tmp_path / "light").clean_NCHW is None
    with pytest.raises(ModelError, match="missing"):
        References.load(tmp_path)


def test_the_best_candidate_is_chosen(restorer: Restorer, references: References) -> None:
    """Where one step for all is the oracle's, stored steps beat what moves towards random routings."""
    weathered, clean = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    one = Sample(restorer, "rain", weathered, clean)
    step_R = own_step(restorer, one)
    many = {name: getattr(references, name).repeat_interleave(3, 0) for name in ("embedding_ND", "kind_N", "gain_N")}
    told = replace(references, **many, step_NR=step_R.expand(24, -1), routing_NR=5 * torch.randn(24, R))
    best, *others = choose(restorer, told, [one])
    assert best.method == "stored steps"
    assert {choices.method for choices in others} == {"mode finding", "kernel regression"}


def test_photographs_are_told_apart_by_name(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"photo{number}.png").touch()
    taken, tuning = photographs([tmp_path])
    assert taken and tuning
    assert not set(taken) & set(tuning)
    assert not any(held_back(path) for path in [*taken, *tuning])
    assert all(for_tuning(path) for path in tuning) and not any(for_tuning(path) for path in taken)


@pytest.mark.usefixtures("quick")
def test_names_of_any_bytes(restorer: Restorer, references: References, tmp_path: Path) -> None:
    numbers = (os.fsdecode(b"caf\xe9 %d.png" % number) for number in range(100))
    held, taken = (next(name for name in numbers if held_back(Path(name)) == wanted) for wanted in (True, False))
    for name in (held, taken):
        Image.new("RGB", (130, 130), (90, 120, 150)).save(tmp_path / name)
    Image.new("RGB", (130, 130)).save(tmp_path / "p2.png")
    assert {path.name for part in photographs([tmp_path]) for path in part} == {taken, "p2.png"}
    assert len(list(samples(restorer, tmp_path / taken, 96, 0))) == 5
    rows = measure(restorer, references, [tmp_path], tmp_path / "work")
    assert rows == measure(restorer, references, [tmp_path], tmp_path / "work")  # as the log holds them
    assert {row["name"] for row in rows} == {Path(held).stem}


@pytest.mark.usefixtures("quick")
def test_what_is_measured(
    restorer: Restorer, references: References, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_experiment, "WEATHERS", ("rain",))
    monkeypatch.setattr(picture_experiment, "KINDS", ("rain", "clear"))
    photos, work = tmp_path / "photos", tmp_path / "work"
    photos.mkdir()
    random, calls = np.random.default_rng(0), list[int]()
    for name in [*HELD, "p1"]:
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(photos / f"{name}.png")
    rows = measure(restorer, references, [photos], work, limit=1, report=lambda done, _: calls.append(done))
    assert calls == [1, 2] and {row["name"] for row in rows} == {HELD[0]}
    rows = measure(restorer, references, [photos], work)
    assert [row["name"] for row in rows] == [HELD[0]] * 2 + [HELD[1]] * 2
    (log,) = work.iterdir()
    whole = log.read_text()
    log.write_text(whole[: whole.rindex("}, ") + 1])  # cut in the last row, where an inner part ends
    again = measure(restorer, references, [photos], work)
    assert again[:-1] == rows[:-1] and again[-1]["decibels"] == rows[-1]["decibels"]
    assert measure(restorer, references, [photos], work) == again
    for row in rows:  # so that there is a share of it
        row["decibels"][ORACLE] = row["decibels"][BASE] + 1 + row["decibels"][ORACLE] / 100
    result = as_result(rows, references, "command", 0)
    gains = [row["decibels"][ORACLE] - row["decibels"][BASE] for row in rows if row["kind"] != "clear"]
    assert result.figure(CROPS, ORACLE, "gain, dB").value == pytest.approx(np.mean(gains))
    assert result.figure(WHOLE, ALL, "photographs").value == 2


@pytest.mark.usefixtures("quick")
def test_other_photographs_of_one_name_and_other_references_are_measured_anew(
    restorer: Restorer, references: References, tmp_path: Path
) -> None:
    others = replace(references, step_NR=-references.step_NR)
    scores = []
    for chosen, grey in ((references, 80), (references, 160), (others, 160)):
        Image.new("RGB", (40, 40), (grey, grey, 90)).save(tmp_path / f"{HELD[0]}.png")
        rows = measure(restorer, chosen, [tmp_path], tmp_path / "work")
        scores.append([row["decibels"] for row in rows])
    first, other_photo, other_references = scores
    assert len(first) == len(other_photo) == 1
    assert first != other_photo != other_references


def test_photographs_that_cannot_be_measured_are_told(
    restorer: Restorer, references: References, tmp_path: Path
) -> None:
    a, b, empty = (tmp_path / name for name in ("a", "b", "empty"))
    for folder in (a, b, empty):
        folder.mkdir()
    for folder in (a, b):
        Image.new("RGB", (100, 127)).save(folder / f"{HELD[0]}.png")
    for folders, words in (
        ([empty], "holds none"),
        ([a], "none of 1 photographs can be read and has 128 pixels a side"),
        ([a, b], f"two photographs have the name {HELD[0]}"),
    ):
        with pytest.raises(MofmeError, match=words):
            measure(restorer, references, folders, tmp_path / "work")


def test_photographs_too_small_for_tuning_are_told(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large enough to cut references from, but not to tune on."""
    for name in ("p2", "p3"):
        Image.new("RGB", (100, 100), (90, 120, 150)).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(building, "SOLVED", -100.0)
    monkeypatch.setattr(building, "LARGEST_K", 1)
    with pytest.raises(MofmeError, match="none of 1 photographs for tuning can be read and has 128 pixels"):
        build(restorer, [tmp_path])
