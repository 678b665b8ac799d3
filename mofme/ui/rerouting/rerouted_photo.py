"""One upload restored twice, as usual and re-routed: files to compare, and what re-routing did."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mofme.errors import ModelError
from mofme.ui.figures import heat_map, thumbnail
from mofme.ui.jobs import Engine, Job, new_folder
from mofme.vision.picture.file import read_picture, write_picture
from mofme.vision.rerouting import METHODS, References, Rerouted, explain

CHOSEN = "as chosen on tuning pictures"
_LEVELS = 255
_LEAST = 0.5 / _LEVELS  # what rounds to nothing is not made to look large


@dataclass(frozen=True)
class ReroutedPhoto:
    """Files of equal size: the photo, restored as usual, restored after re-routing, and where the two differ.

    `changed` is the mean and `most_changed` the largest difference between the two, in levels of 0 to 255.
    """

    rerouted: Rerouted
    photo: Path
    plain: Path
    download: Path
    difference: Path
    changed: float
    most_changed: float


def reroute_photo(
    engine: Engine,
    references: References,
    job: Job,
    upload: Path,
    method: str,
    megapixels: float,
    on_progress: Callable[[float], None],
) -> ReroutedPhoto:
    """Restore one upload twice. `method` is one of METHODS, or CHOSEN.

    Raises MofmeError if it is no picture, too large, or the job was stopped; ModelError for a model that is not there.
    """
    chosen = next((name for name in METHODS if name == method), None)
    if chosen is None and method != CHOSEN:
        raise ModelError(f"no re-routing method is called {method!r}: choose {', '.join(METHODS)}")

    def report(done: float) -> None:
        job.check()
        on_progress(done)

    picture = read_picture(upload, megapixels)
    restorer = engine.restorer(references.model)
    with engine.turn:
        found = explain(restorer, picture.rgb, chosen, references, on_progress=report)
    job.check()
    folder = new_folder()
    photo, plain = folder / "photo.png", folder / "restored.png"
    write_picture(photo, picture.rgb, picture, "png")
    write_picture(plain, found.plain.image, picture, "png")
    download = folder / f"{upload.stem}-rerouted.png"
    write_picture(download, found.restoration.image, picture, "png")
    difference = (found.restoration.image - found.plain.image).abs()
    return ReroutedPhoto(
        found,
        photo,
        plain,
        download,
        _difference_map(found.plain.image, difference, folder / "difference.jpg"),
        _LEVELS * float(difference.mean()),
        _LEVELS * float(difference.max()),
    )


def _difference_map(rgb: Tensor, difference: Tensor, path: Path) -> Path:
    changed = thumbnail(difference.mean(dim=0, keepdim=True))[0]
    # Not the maximum: a few strong spots would leave the rest dark.
    strong = changed.flatten().sort().values[int(0.995 * (changed.numel() - 1))]
    heat_map(thumbnail(rgb), changed / strong.clamp_min(_LEAST)).save(path, quality=88)
    return path
