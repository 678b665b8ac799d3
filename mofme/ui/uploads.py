"""What visitors hand in and get: upload boxes, texts and tables, and the folders in which the app keeps files."""

import html
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.data_classes import FileData, ImageData
from gradio.utils import get_upload_folder

from mofme.errors import MofmeError, PictureError, TableError
from mofme.files import cache_root, only_one, printable
from mofme.ui.figures import save_picture, thumbnail
from mofme.ui.memory import MEMORY, needed
from mofme.vision.picture.file import read_picture

if sys.platform != "win32":
    import fcntl

KEEP_SECONDS = 2 * 3600
"""How long results may be fetched; longer than any job runs."""

SHIPPED_TEXT = Path(__file__).with_name("midsummer_nights_dream.txt")
"""A Midsummer Night's Dream, in the public domain."""

ALOUD = "element.setAttribute('role', 'status')"
"""What makes screen readers tell what comes to stand in a `gr.HTML`: its `js_on_load`."""

_CHARACTERS = 1_000_000
_MOMENT = 60.0  # seconds
_MOST_ORIGINALS = 1000
_ORIGINALS: OrderedDict[str, str] = OrderedDict()  # uploads by the names of the thumbnails that stand for them
_APP_PREFIX, _PREFIX = "mofme-app-", "mofme-to-fetch-"
_THUMBNAIL = re.compile(r"shown-[0-9a-f]{24}\.jpg")
_LOCK = "running.lock"
_KEPT, _MOST_KEPT = "unfinished", 8  # videos that wait to be gone on with


def photo_box(elem_id: str) -> gr.Image:
    """A box for one picture: drop, click or paste. The function behind it receives the path of the untouched file."""
    box = gr.Image(
        type="filepath",
        image_mode=None,
        label="Your photo",
        show_label=False,
        sources=["upload", "clipboard"],
        height=300,
        elem_id=elem_id,
        placeholder="Drop a photo here\nor click to choose one",
        alt_text="Your photo",
        buttons=[],
    )
    problem = gr.HTML(padding=False, js_on_load=ALOUD)
    quietly: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    box.upload(preview, box, [box, problem], **quietly)
    box.clear(lambda: "", None, problem, **quietly)
    # Gradio would open the picture first: no word to the user if it is broken, and a re-encoded copy in some modes.
    box.preprocess = _path_of  # type: ignore[method-assign]
    refuse_addresses(box)
    return box


def preview(path: str | None) -> tuple[str | None, str]:
    """What a `photo_box` shows of an upload, and what is wrong with it (HTML): a thumbnail of ours for formats that
    browsers cannot show, which stands for the untouched file; nothing of what is no picture.

    Never an update: Gradio would answer it with a box anew, without what `photo_box` changed.
    """
    if not path:
        return None, ""
    with open(path, "rb") as file:
        header = file.read(12)
    if header.startswith((b"\xff\xd8", b"\x89PNG", b"BM")) or header[:4] + header[8:] == b"RIFFWEBP":
        return path, ""
    try:
        with MEMORY.room(needed([path]), _no_preview):
            small = thumbnail(read_picture(Path(path), MEMORY.megapixels or 100).rgb)
    except PictureError as error:
        return None, f"<p class='problem'>{html.escape(without_folders(str(error)))}</p>"
    except MofmeError as error:  # there is no memory to show it now: the file itself stays
        return path, f"<p class='note'>{html.escape(str(error))}</p>"
    shown = new_folder() / f"shown-{secrets.token_hex(12)}.jpg"
    _ORIGINALS[shown.name] = path
    while len(_ORIGINALS) > _MOST_ORIGINALS:
        _ORIGINALS.popitem(last=False)
    return str(save_picture(small, shown)), ""


def _no_preview() -> None:
    raise MofmeError("The app is busy: this photo cannot be shown now, and can be restored.")


def chosen_photo(path: str | None) -> Path:
    """What a `photo_box` hands on. Raises PictureError for nothing."""
    if not path:
        raise PictureError("Choose a photo first: drop one into the box, paste one, or click an example.")
    return Path(path)


class Upload(str):
    """The path of a file that was handed in; `name` is how its visitor knows it, below the folder that they chose."""

    name: str

    def __new__(cls, file: FileData) -> "Upload":
        upload = super().__new__(cls, file.path)
        path = Path(file.path)
        # Anybody may send any name: nothing in it leads out of a folder, and the last part is one that can be kept.
        parts = [printable(part).replace(":", "_") for part in re.split(r"[/\\]", file.orig_name or "")]
        upload.name = "/".join([*(part for part in parts[:-1] if part.strip(". ")), path.name])
        return upload


def file_box(**arguments: Any) -> gr.File:
    """A box for files of any kind, which hands on a path, or with `file_count` "multiple" a list of `Upload`."""
    box = gr.File(type="filepath", **arguments)
    if box.file_count == "multiple":
        box._process_single_file = Upload  # type: ignore[method-assign, assignment]
    refuse_addresses(box)
    return box


def download_button(words: str, elem_id: str, **more: Any) -> gr.DownloadButton:
    """A button that is not seen before there is a file: see `to_download`."""
    return gr.DownloadButton(words, visible=False, elem_id=elem_id, **{"variant": "primary", **more})


def to_download(path: Path | None) -> gr.DownloadButton:
    """What a `download_button` becomes: visible if there is a file."""
    return gr.DownloadButton(value=str(path) if path else None, visible=path is not None)


def refuse_addresses(box: Component) -> None:
    """Callers of the API may pass an address instead of a file; the server must not fetch it for them."""
    move = box.async_move_resource_to_block_cache

    async def only_files(url_or_file_path: str | Path | None) -> str | None:
        if str(url_or_file_path).lower().startswith(("http:", "https:")):
            raise gr.Error("Upload the file itself: addresses are not fetched.", print_exception=False)
        return await move(url_or_file_path)

    box.async_move_resource_to_block_cache = only_files  # type: ignore[method-assign]


def read_own_text(path: str | Path | None) -> str:
    """The first million characters of a visitor's text, or the one that ships. Raises TableError for no UTF-8."""
    path = Path(path or SHIPPED_TEXT)
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_CHARACTERS)
    except UnicodeDecodeError as error:
        raise TableError(f"{path.name} is no text in UTF-8: save it as plain text first.") from error
    if not text.strip():
        raise TableError(f"{path.name} is empty.")
    return text


@dataclass
class Results:
    """What visitors may still fetch: of so many bytes together, for KEEP_SECONDS at most."""

    most_bytes: float = 10e9
    in_work: set[str] = field(default_factory=set)  # names of folders that stay, however long nothing is written
    _looked: float = 0.0

    def clear(self, root: Path) -> None:
        """Remove the oldest folders, once in a while. A file that is being fetched can be read to its end, or stays (on
        Windows), and so does a folder that changed a moment ago: somebody writes it, or is about to fetch it.
        """
        now = time.time()
        if now - self._looked < _MOMENT:
            return
        self._looked = now
        changed, sizes = {}, {}
        for folder in root.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # what is in it may go at this moment
                files = [path.stat() for path in (folder, *folder.rglob("*"))]
                changed[folder] = max(file.st_mtime for file in files)
                sizes[folder] = sum(file.st_size for file in files[1:])
        room = self.most_bytes
        for folder in sorted(changed, key=changed.__getitem__, reverse=True):
            room -= sizes[folder]
            age = now - changed[folder]
            if folder.name not in self.in_work and (age > KEEP_SECONDS or (room < 0 and age > _MOMENT)):
                shutil.rmtree(folder, ignore_errors=True)


RESULTS = Results()


def new_folder() -> Path:
    """A fresh folder in Gradio's own temporary folder, whose files it serves; old ones are removed on the way."""
    root = Path(get_upload_folder())
    root.mkdir(parents=True, exist_ok=True)
    RESULTS.clear(root)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))


@contextmanager
def folder_in_work() -> Iterator[Path]:
    """A `new_folder` that stays while it is worked on, however long nothing is written."""
    folder = new_folder()
    RESULTS.in_work.add(folder.name)
    try:
        yield folder
    finally:
        RESULTS.in_work.discard(folder.name)


@contextmanager
def kept_folder(name: str) -> Iterator[Path]:
    """The folder of the work called `name`, which whoever does it next finds as it was left, also by an app that was
    killed; it goes when the block ends well. A few are kept, for as long as results are.

    Without a cache or locks, or if somebody else is at the same work, it is a new folder that is gone at the end.
    """
    folder, ended_well = cache_root() / _KEPT / name, False
    with ExitStack() as stack:
        try:
            if sys.platform == "win32":
                raise OSError("there are no locks")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.utime(folder)
            lock = only_one(folder / _LOCK)
            if lock is None:
                raise OSError("somebody else is at it")
            stack.enter_context(lock)
            _clear_kept()
        except OSError:
            folder = stack.enter_context(folder_in_work())
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            yield folder
            ended_well = True
        finally:
            if ended_well or {path.name for path in folder.iterdir()} <= {_LOCK}:
                shutil.rmtree(folder, ignore_errors=True)


def _clear_kept() -> None:
    times = {folder: folder.stat().st_mtime for folder in (cache_root() / _KEPT).glob("*")}
    for number, folder in enumerate(sorted(times, key=times.__getitem__, reverse=True)):
        if number >= _MOST_KEPT or times[folder] < time.time() - KEEP_SECONDS:
            _remove_if_left(folder)


def without_folders(message: str) -> str:
    """Visitors know their files by name; where the server keeps them is none of their business."""
    places = "|".join(re.escape(str(place)) for place in (get_upload_folder(), cache_root() / _KEPT))
    return re.sub(rf"(?:{places})[/\\](?:[^/\\\s]+[/\\])*", "", message)


@contextmanager
def own_folder() -> Iterator[Path]:
    """A new folder that nobody else may read, gone at the end. Those of this user's apps that were killed go first (not
    on Windows, which knows no such locks).
    """
    for other in Path(tempfile.gettempdir()).glob(f"{_APP_PREFIX}*"):
        _remove_if_left(other)
    with suppress(OSError):
        _clear_kept()
    folder = Path(tempfile.mkdtemp(prefix=_APP_PREFIX))
    # Locked before it gets its name: whoever finds a lock free finds a dead app's.
    with (folder / "starting").open("w") as lock:
        try:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)
                (folder / "starting").rename(folder / _LOCK)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _path_of(payload: ImageData | None) -> str | None:
    if payload is None:
        return None
    if not payload.path:
        raise gr.Error("Upload the picture as a file.", print_exception=False)
    name = Path(payload.path).name
    if _THUMBNAIL.fullmatch(name) and name not in _ORIGINALS:
        raise gr.Error("This photo was handed in too long ago: choose it again.", print_exception=False)
    return _ORIGINALS.get(name, payload.path)


def _remove_if_left(folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
            return
        with open(os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # it runs, begins or ends at this moment
        return
