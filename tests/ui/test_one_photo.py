from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from mofme.errors import Cancelled, PictureError, PictureTooLargeError
from mofme.ui.figures import expert_figures, telling_layer, thumbnail, uncertainty_figure
from mofme.ui.jobs import Engine, Job
from mofme.ui.one_photo import RestoredPhoto, Settings, restore_photo


def restored(engine: Engine, path: Path) -> RestoredPhoto:
    return restore_photo(engine, Job(60), path, Settings("small"), megapixels=1)


def test_the_download_keeps_format_and_metadata_and_stands_upright(engine: Engine, photo: Path) -> None:
    result = restored(engine, photo)
    assert result.download.name == "my photo-restored.jpg"
    with Image.open(result.download) as image:
        assert (image.format, image.size) == ("JPEG", (64, 96))
        assert image.getexif()[ExifTags.Base.Make] == "A camera"
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1


def test_the_comparison_shows_the_upload_itself_beside_a_lossless_result(engine: Engine, photo: Path) -> None:
    result = restored(engine, photo)
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


def test_a_png_is_written_once(engine: Engine, photo: Path) -> None:
    path = photo.with_suffix(".png")
    Image.new("RGBA", (20, 10), (1, 2, 3, 128)).save(path)
    result = restored(engine, path)
    assert result.after == result.download
    with Image.open(result.download) as image:
        assert image.mode == "RGBA"


def test_a_wrong_suffix_is_put_right(engine: Engine, photo: Path) -> None:
    wrong = photo.rename(photo.with_suffix(".png"))
    result = restored(engine, wrong)
    assert result.download.suffix == ".jpeg"
    with Image.open(result.download) as image:
        assert image.format == "JPEG"


def test_progress_ends_at_one(engine: Engine, photo: Path) -> None:
    seen: list[float] = []
    restore_photo(engine, Job(60), photo, Settings("small"), 1, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_a_cancelled_job_stops_within_the_picture(engine: Engine, photo: Path) -> None:
    job = Job(60)
    with pytest.raises(Cancelled):
        restore_photo(engine, job, photo, Settings("small", ensemble=True), 1, lambda done: job.cancel())


def test_what_is_no_picture_or_too_large_is_refused_by_name(engine: Engine, photo: Path, broken: Path) -> None:
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        restored(engine, broken)
    with pytest.raises(PictureTooLargeError, match="megapixels"):
        restore_photo(engine, Job(60), photo, Settings("small"), megapixels=0.001)


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
