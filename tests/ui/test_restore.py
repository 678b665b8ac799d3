from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from mofme.core.weights import checksum
from mofme.errors import Cancelled, ModelError, PictureError, PictureTooLargeError
from mofme.papers.r2t2.references import References
from mofme.ui.figures import expert_figures, telling_layer, thumbnail, uncertainty_figure
from mofme.ui.models import Engine
from mofme.ui.runs import Job
from mofme.ui.tabs.restore import RestoredPhoto, Settings, restore_photo


def restored(engine: Engine, path: Path) -> RestoredPhoto:
    return restore_photo(engine, Job(60), str(path), Settings("small"), megapixels=1)


def test_the_download_is_as_the_upload_was_and_compared_as_it_is(engine: Engine, photo: Path) -> None:
    result = restored(engine, photo)
    assert result.download.name == "my photo-restored.jpg"
    with Image.open(result.download) as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
        assert image.getexif()[ExifTags.Base.Make] == "A camera"
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    assert result.before == photo
    with Image.open(result.after) as image:
        assert image.format == "PNG"
        expected = (result.restoration.image * 255).round().permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(image) - expected).max() <= 1


def test_formats_no_browser_shows_are_compared_as_png_and_downloaded_as_they_were(engine: Engine, photo: Path) -> None:
    path = photo.with_suffix(".tif")
    Image.new("RGB", (20, 10), "red").save(path)
    result = restored(engine, path)
    assert (result.before.suffix, result.after.suffix, result.download.suffix) == (".png", ".png", ".tif")
    with Image.open(result.before) as before, Image.open(result.after) as after:
        assert before.size == after.size == (20, 10)


def test_pages_that_are_not_shown_are_told(engine: Engine, photo: Path) -> None:
    path = photo.with_suffix(".tif")
    Image.new("RGB", (20, 10), "red").save(path, save_all=True, append_images=[Image.new("RGB", (20, 10), "blue")])
    result = restored(engine, path)
    with Image.open(result.download) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert "all 2 frames or pages are restored" in result.words()
    assert result.report()["frames"] == 2
    assert "frames" not in restored(engine, photo).report()


def test_a_wrong_suffix_is_put_right(engine: Engine, photo: Path) -> None:
    wrong = photo.rename(photo.with_suffix(".png"))
    result = restored(engine, wrong)
    assert result.download.suffix == ".jpeg"
    with Image.open(result.download) as image:
        assert image.format == "JPEG"


def test_two_visitors_at_once_get_what_each_gets_alone(engine: Engine, photo: Path) -> None:
    other = photo.with_name("other.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)).save(other)
    alone = [restored(engine, path) for path in (photo, other)]
    with ThreadPoolExecutor(2) as visitors:
        together = list(visitors.map(partial(restored, engine), (photo, other)))
    for one, same in zip(alone, together, strict=True):
        assert torch.equal(one.restoration.image, same.restoration.image)
        assert one.download.read_bytes() == same.download.read_bytes()


def test_a_cancelled_job_stops_within_the_picture_and_while_others_restore(engine: Engine, photo: Path) -> None:
    job = Job(60, lambda share, words: job.cancel() if share else None)
    with pytest.raises(Cancelled):
        restore_photo(engine, job, str(photo), Settings("small", ensemble=True), 1)
    job = Job(60, lambda share, words: job.cancel())
    with engine.turn(), pytest.raises(Cancelled):
        restore_photo(engine, job, str(photo), Settings("small"), 1)


def test_what_is_no_picture_or_too_large_is_refused_by_name(engine: Engine, photo: Path, broken: Path) -> None:
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        restored(engine, broken)
    with pytest.raises(PictureTooLargeError, match="megapixels"):
        restore_photo(engine, Job(60), str(photo), Settings("small"), megapixels=0.001)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (900, 2)])
def test_the_explanation_is_drawn_for_any_shape(engine: Engine, tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "thin.png"
    Image.new("RGB", size, "teal").save(path)
    result = restored(engine, path)
    small = thumbnail(result.restoration.image)
    assert expert_figures(small, telling_layer(result.restoration.routing), tmp_path)
    figure, _ = uncertainty_figure(small, result.restoration.uncertainty, tmp_path)
    with Image.open(figure) as image:
        assert image.size == (small.shape[2], small.shape[1])


def test_a_photo_is_re_routed_when_asked_for(engine: Engine, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = engine.restorer("small").net
    layers = sum(name.endswith(".router") for name, _ in net.named_modules())
    made = References(
        model="small",
        model_sha256=checksum(net.state_dict()),
        embedding_ND=torch.randn(6, 2 * 96),
        routing_NR=torch.randn(6, 16 * layers),
        step_NR=torch.randn(6, 16 * layers),
        kind_N=torch.zeros(6, dtype=torch.long),
        gain_N=torch.ones(6),
    )
    monkeypatch.setattr(References, "load", lambda: made)
    result = restore_photo(engine, Job(60), str(photo), Settings("small", reroute=True), megapixels=1)
    assert result.rerouted is not None and result.rerouted.moved > 0
    assert result.rerouted.restoration is result.restoration
    assert result.report()["moved"] == round(result.rerouted.moved, 4)
    plain = restore_photo(engine, Job(60), str(photo), Settings("small"), megapixels=1)
    assert plain.rerouted is None and "moved" not in plain.report()
    monkeypatch.undo()
    with pytest.raises(ModelError, match="build-references"):  # as the shipped ones are another net's
        restore_photo(engine, Job(60), str(photo), Settings("small", reroute=True), megapixels=1)
