"""One upload from file to file: what the Restore tab and the `/restore` endpoint do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mofme.ui.jobs import Engine, Job, new_folder
from mofme.vision.picture.decode import Picture
from mofme.vision.picture.file import FORMATS, read_picture, write_picture
from mofme.vision.rerouting import References, Rerouted, Rerouter
from mofme.vision.restorer import Restoration

# Browsers show these formats as they are; anything else is shown as a PNG of the same pixels.
BROWSER_FORMATS = frozenset({"jpeg", "png", "webp", "bmp"})


@dataclass(frozen=True)
class Settings:
    """What the visitor may choose: the model, how much of the change to keep (0 to 1), and how thoroughly to work."""

    model: str | None
    strength: float = 1.0
    ensemble: bool = False
    tile: int = 0
    reroute: bool = False

    @property
    def tile_side(self) -> int | None:
        """Side of the tiles in pixels; None leaves it to the restorer."""
        return self.tile or None


@dataclass(frozen=True)
class RestoredPhoto:
    """A restored upload: the file to download, two files of equal size to compare in a browser, and the explanation."""

    picture: Picture
    restoration: Restoration
    download: Path
    before: Path
    after: Path
    rerouted: Rerouted | None = None


def restore_photo(
    engine: Engine,
    job: Job,
    upload: Path,
    settings: Settings,
    megapixels: float,
    on_progress: Callable[[float], None] | None = None,
) -> RestoredPhoto:
    """Restore one uploaded file. Raises MofmeError if it is no picture, too large, or the job was stopped."""

    def report(done: float) -> None:
        job.check()
        if on_progress:
            on_progress(done)

    picture = read_picture(upload, megapixels)
    restorer = engine.restorer(settings.model)
    rerouted: list[Rerouted] = []
    with engine.turn:
        restore = Rerouter(restorer, References.load(), report=rerouted.append) if settings.reroute else restorer
        restoration = restore(
            picture.rgb,
            strength=settings.strength,
            ensemble=settings.ensemble,
            tile=settings.tile_side,
            explain=True,
            on_progress=report,
        )
    job.check()
    folder = new_folder()
    download = folder / f"{upload.stem}-restored{_suffix(upload, picture)}"
    write_picture(download, restoration.image, picture, picture.format)
    after = download
    if picture.format != "png":
        after = folder / f"{upload.stem}-restored.png"
        write_picture(after, restoration.image, picture, "png")
    before = upload
    if picture.format not in BROWSER_FORMATS:
        before = folder / f"{upload.stem}.png"
        write_picture(before, picture.rgb, picture, "png")
    return RestoredPhoto(picture, restoration, download, before, after, rerouted[0] if rerouted else None)


def _suffix(upload: Path, picture: Picture) -> str:
    """The suffix of the upload, or that of its content where the name says something else."""
    return upload.suffix if FORMATS.get(upload.suffix.lower()) == picture.format else f".{picture.format}"
