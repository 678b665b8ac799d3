"""Which output becomes of which file of a folder: the same one in every run."""

from collections import Counter
from pathlib import Path

from mofme.errors import PictureError
from mofme.files import check_can_hold, find_files
from mofme.vision.picture.file import FORMATS, READABLE_SUFFIXES
from mofme.vision.picture.kinds import left_out
from mofme.vision.report import REPORT, as_written, earlier_rows_if_any, has_time_of
from mofme.vision.video_file import CONTAINERS, VIDEO_SUFFIXES


def plan_tree(source: Path, target: Path, format: str | None = None) -> list[tuple[Path, Path]]:
    """Pair every picture and video under `source` with its output under `target`, which may lie inside `source`.

    With a `format` the suffix of pictures changes, and `a.jpg` that would meet another's `a.png` becomes `a.jpg.png`.
    A name that the report in `target` tells of stays with its file, whatever came or went beside it since.
    Videos keep theirs, except of kinds that are only read, which become `.mp4`.
    Raises PictureError if `source` is no folder, the format is unknown, or an output would replace an input.
    """
    if not source.is_dir():
        raise PictureError(f"{source}: is not a folder.")
    if format and f".{format.lower()}" not in FORMATS:
        raise PictureError(f"cannot write {format!r}; choose one of {', '.join(FORMATS)}.")
    if target.exists() and target.samefile(source):
        raise PictureError(f"{target}: the results need another folder than the pictures, or they would replace them.")
    try:
        check_can_hold(target / REPORT)
    except OSError as error:
        if not (target / REPORT).is_dir():  # which is told when it is read
            raise PictureError(str(error)) from error
    inputs = find_files(source, READABLE_SUFFIXES | VIDEO_SUFFIXES)
    if target.resolve().is_relative_to(source.resolve()):  # earlier results are no inputs
        inputs = [path for path in inputs if not path.resolve().is_relative_to(target.resolve())]
    names = _output_names([path.relative_to(source) for path in inputs], format, target, source)
    plan = [(path, target / name) for path, name in zip(inputs, names, strict=True)]
    originals = {path.resolve() for path in inputs}
    for path, output in plan:
        if output.resolve() in originals:
            raise PictureError(f"{output}: the result of {path} would replace this picture; choose another folder.")
    return plan


def others_in(source: Path, target: Path) -> str:
    """What else lies under `source`, beside what `plan_tree` finds there, in one line; empty if nothing does."""
    known, inside = READABLE_SUFFIXES | VIDEO_SUFFIXES, target.resolve()
    others = (path for path in find_files(source, None) if path.suffix.lower() not in known)
    return left_out(path for path in others if not path.resolve().is_relative_to(inside))


def _output_names(names: list[Path], format: str | None, target: Path, source: Path) -> list[Path]:
    """A name for the output of each: the one it has by the report of an earlier run, else a free one."""
    rows = earlier_rows_if_any(target / REPORT)
    suffixes = [output_suffix(name, format) for name in names]
    renamed = [name.with_suffix(suffix) for name, suffix in zip(names, suffixes, strict=True)]
    inputs = {as_written(name.as_posix()) for name in names}
    owned: dict[str, str] = {}  # output, as file systems compare that ignore case, to file
    for file, output in rows:
        if output and (file in inputs or (target / output).exists()):
            owned.setdefault(output.casefold(), file)
    for name, new in zip(names, renamed, strict=True):
        # Of a run that was killed before it could report: outputs have the time of what they were made of.
        if name != new and not has_time_of(source / new, target / new) and has_time_of(source / name, target / new):
            owned.setdefault(new.as_posix().casefold(), as_written(name.as_posix()))
    # Compared as file systems do that ignore case.
    often = Counter(str(name).casefold() for name in renamed)
    taken = {str(name).casefold() for name, new in zip(names, renamed, strict=True) if name == new}
    found = []
    for name, new, suffix in zip(names, renamed, suffixes, strict=True):
        file, free = as_written(name.as_posix()), new

        def is_mine(path: Path, file: str = file) -> bool | None:
            owner = owned.get(as_written(path.as_posix()).casefold())
            return None if owner is None else owner == file

        longer = name.with_name(name.name + suffix)
        if own := next((path for path in (new, longer) if is_mine(path)), None):
            free = own
        elif is_mine(new) is False or (name != new and often[str(new).casefold()] > 1):
            free = longer
            while str(free).casefold() in taken or is_mine(free) is False:
                free = free.with_name(free.name + suffix)
        taken.add(str(free).casefold())
        found.append(free)
    return found


def output_suffix(name: Path, format: str | None) -> str:
    """The suffix for what becomes of this picture or video, with `format` for pictures."""
    own = name.suffix.lower()
    if own in VIDEO_SUFFIXES:
        return name.suffix if own in CONTAINERS else ".mp4"
    if format is None or FORMATS.get(own) == FORMATS[f".{format.lower()}"]:
        return name.suffix
    return f".{format.lower()}"
