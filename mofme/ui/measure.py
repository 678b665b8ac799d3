"""Uploads whose answer is known, restored and measured: what the Evaluate tab and `/evaluate` do."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from mofme.errors import PictureError
from mofme.measure.result import save_result
from mofme.ui.jobs import Engine, Job, new_folder
from mofme.ui.limits import Limits
from mofme.ui.many_photos import gather
from mofme.ui.measure_frames import measure_frames
from mofme.ui.measure_pairs import measure_pairs
from mofme.ui.measuring import Measuring
from mofme.vision.archive import extract, pack


def measure(
    engine: Engine,
    job: Job,
    degraded: Sequence[Path],
    clean: Sequence[Path],
    model: str | None,
    label_set: str,
    limits: Limits,
) -> Iterator[Measuring]:
    """Measure what was uploaded, yielding after each picture; one that cannot be measured is reported.

    `degraded` is one ZIP, with `input/` and `target/` or with `images/` and `labels/`; or pictures, whose clean
    versions by name are in `clean`. What the job's time does not suffice for is reported, too. Raises MofmeError if
    nothing can be measured, or if there is too much of it, and Cancelled if the visitor stopped the job.
    """
    folder = new_folder()
    source, report = folder / "source", folder / "report"
    report.mkdir()
    try:
        root, refused = _unpack(degraded, clean, source)
        if (root / "images").is_dir() and (root / "labels").is_dir():
            steps = measure_frames(engine, job, model, root, report, limits, label_set)
        else:
            steps = measure_pairs(engine, job, model, root, report, limits)
        for state in steps:
            state.errors |= refused
            if state.result is not None:
                for number, plot in enumerate(state.plots(), 1):
                    (report / f"plot-{number}.svg").write_text(plot, encoding="utf-8")
                save_result(state.result, report)
                pack(report, folder / "evaluation.zip")
                state.archive = folder / "evaluation.zip"
            yield state
    finally:
        shutil.rmtree(source, ignore_errors=True)


def _unpack(degraded: Sequence[Path], clean: Sequence[Path], folder: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds the pairs or the labelled frames, and what cannot be used."""
    archives = [path for path in degraded if path.suffix.lower() == ".zip"]
    if archives and not clean and len(degraded) == 1:
        root = folder / archives[0].stem
        extract(archives[0], root)
        while len(inner := list(root.iterdir())) == 1 and inner[0].is_dir() and inner[0].name != "input":
            root = inner[0]  # many archives hold one folder that holds everything
        return root, {}
    if archives or not degraded or not clean:
        raise PictureError(
            "Choose the pictures in bad weather and their clean versions, or one ZIP with input/ and target/, "
            "or with images/ and labels/."
        )
    refused = [*gather(degraded, folder / "pairs" / "input"), *gather(clean, folder / "pairs" / "target")]
    return folder / "pairs", {report.file: report.error for report in refused}
