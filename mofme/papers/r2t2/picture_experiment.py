"""How much re-routing gains on photographs that neither training, references nor tuning have seen.

Every picture is written down as soon as it is measured, so that a stopped run goes on where it was. Axis names: P
photographs, R routing weights.
"""

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mofme.core.rerouting import Neighbours, by_layer, frozen, nearest, regress
from mofme.errors import MofmeError, PictureError, ResultError
from mofme.measure.result import Figure, Result, Row, load_result, this_machine
from mofme.measure.statistics import FloatArray, bootstrap, bootstrap_percent
from mofme.measure.study import Log
from mofme.papers.r2t2 import judge_pictures
from mofme.papers.r2t2.building import Sample, decibels, moved, name_bytes, own_step
from mofme.papers.r2t2.references import KINDS, Method, References
from mofme.papers.r2t2.rerouter import explain, find, neighbours_loss
from mofme.vision.datasets import held_back, with_weather
from mofme.vision.picture.file import find_pictures, read_picture
from mofme.vision.restorer import Restorer
from mofme.vision.weather import WEATHERS

TEST_CROP = 128
BASE = "as its routers say"
ORACLE = "oracle: descent on the picture's own loss"
SEARCHED = "kernel regression, share searched on the neighbours"
RANDOM_STEPS = "control: stored steps of random references"
RANDOM_DESCENT = "control: gradient descent on random references"
UNIFORM = "control: all experts alike"
WHOLE_PLAIN, WHOLE_REROUTED = "whole, plain", "whole, re-routed"

ROOM = "rerouting_pictures"
CROPS = f"crops of {TEST_CROP} pixels"
BY_WEATHER = "crops by weather"
WHOLE = "whole photographs"
CLEAR = "clear photographs, compared with themselves"
ALL = "all weathers"
GAIN = "gain, dB"
_SHARE = "share of the oracle's gain, %"

Measured = dict[str, Any]
Report = Callable[[int, int], None]


def measure(
    restorer: Restorer,
    references: References,
    folders: Sequence[Path],
    work: Path,
    limit: int | None = None,
    seed: int = 0,
    report: Report = lambda *_: None,
) -> list[Measured]:
    """For every held-back photograph and weather: its name, kind, PSNR in dB and seconds of every arm.

    The arms of a picture work on its central crop, since the oracle would take minutes on all of it; the method chosen
    works on the whole photograph too. `work` is a folder for what is finished. Raises MofmeError if no photograph is
    held back, if two have one name, or if none can be measured, ModelError if the references lack pairs or are of
    another model.
    """
    references.check(restorer.net)
    paths = [path for folder in folders for path in find_pictures(folder) if held_back(path)][:limit]
    if not paths:
        raise MofmeError("training holds none of these photographs back: name the folders that it was given")
    names = [path.stem for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MofmeError(f"two photographs have the name {', '.join(twice)}: rename one, or leave it out")
    choices = zlib.crc32(repr((references.choices, references.others)).encode())
    log = Log(work / f"{references.model_sha256[:12]}-{references.digest[:12]}-{choices:08x}-{seed}.jsonl")
    done = {(row["name"], row["kind"]): row for row in log.rows()}
    todo = [(path, kind) for path in paths for kind in KINDS]
    for number, (path, kind) in enumerate(todo, start=1):
        try:
            rgb = (read_picture(path).rgb * 255).round() / 255
        except PictureError:
            continue
        if min(rgb.shape[1:]) < TEST_CROP:
            continue
        pixels = zlib.crc32(rgb.numpy().data)  # another photograph may have had this name
        if done.get((path.stem, kind), {}).get("pixels") != pixels:
            row = {"name": path.stem, "kind": kind, "pixels": pixels}
            row |= _measure(restorer, references, rgb, path, kind, seed)
            log.append(row)
            done[path.stem, kind] = row
        report(number, len(todo))
    measured = [done[path.stem, kind] for path, kind in todo if (path.stem, kind) in done]
    if not measured:
        raise MofmeError(
            f"none of {len(paths)} photographs can be read and has {TEST_CROP} pixels a side: add larger ones"
        )
    return measured


def _measure(
    restorer: Restorer, references: References, rgb: Tensor, path: Path, kind: str, seed: int
) -> dict[str, dict[str, float]]:
    weathered = with_weather(rgb, path.stem, frozenset({kind}) & frozenset(WEATHERS), seed)
    window = [slice((side - TEST_CROP) // 2, (side + TEST_CROP) // 2) for side in rgb.shape[1:]]
    start = time.process_time()
    one = Sample(restorer, kind, weathered[:, *window], rgb[:, *window])
    seconds = {BASE: time.process_time() - start}
    reached = {BASE: one.decibels}
    random = torch.Generator().manual_seed(seed + sum(name_bytes(path)))
    start = time.process_time()
    for arm, shift_R in _shifts(restorer, references, one, random):
        seconds[arm] = time.process_time() - start
        reached[arm] = moved(restorer, one, shift_R)
        start = time.process_time()
    result = explain(restorer, weathered, None, references)
    reached[WHOLE_PLAIN] = decibels(result.plain.image, rgb)
    reached[WHOLE_REROUTED] = decibels(result.restoration.image, rgb)
    seconds[WHOLE_PLAIN], seconds[WHOLE_REROUTED] = result.plain.seconds, result.seconds
    return {"decibels": reached, "seconds": seconds, "moved": {WHOLE_REROUTED: result.moved}}


def _shifts(
    restorer: Restorer, references: References, one: Sample, random: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """Every arm, and how it shifts the routing."""
    net, own_R = restorer.net, one.seen.routing_R

    def by(method: Method, random: torch.Generator | None = None) -> Tensor:
        near = _any(references, method, random) if random else None
        return find(net, one.seen, references, method, near).routing_R - own_R

    for method in ("mode finding", "kernel regression", "stored steps"):
        yield method, by(method)
    near = references.near(one.seen.embedding_D, references.best("gradient descent").k)
    with frozen(net):
        yield SEARCHED, regress(own_R, near, references.routing_NR, neighbours_loss(net, references, near)) - own_R
    yield "gradient descent", by("gradient descent")
    yield ORACLE, own_step(restorer, one)
    yield RANDOM_STEPS, by("stored steps", random)
    yield RANDOM_DESCENT, by("gradient descent", random)
    even = [weights_E.mean().expand_as(weights_E) for weights_E in by_layer(net, own_R).values()]
    yield UNIFORM, torch.cat(even) - own_R


def _any(references: References, method: Method, random: torch.Generator) -> Neighbours:
    """As many references drawn at random, weighed by the same kernel as if they were the nearest."""
    drawn = torch.randperm(len(references), generator=random)[: references.best(method).k]
    placed_kD = references.placed(references.embedding_ND[drawn])
    near = nearest(placed_kD.mean(dim=0), placed_kD, len(drawn))
    return Neighbours(drawn[near.index_k], near.kernel_k)


def as_result(rows: Sequence[Measured], references: References, command: str, seed: int) -> Result:
    """Everything that `measure` measured, beside the paper's claim; photographs are what the bootstrap draws."""
    weathered = [row for row in rows if row["kind"] != "clear"]
    arms = [arm for arm in rows[0]["decibels"] if arm not in (BASE, WHOLE_PLAIN, WHOLE_REROUTED)]
    tables = [Row(CROPS, arm, _arm(weathered, arm)) for arm in arms]
    parts = {kind: [row for row in rows if row["kind"] == kind] for kind in KINDS}
    for arm in arms:
        tables.append(Row(BY_WEATHER, arm, {f"{kind}: gain, dB": _gain(parts[kind], arm, BASE) for kind in WEATHERS}))
    tables.append(Row("setting", "references", {"pairs": Figure.exact(len(references))}))
    for kind in (*WEATHERS, ALL):
        part = weathered if kind == ALL else parts[kind]
        took, plain = (sum(row["seconds"][arm] for row in part) for arm in (WHOLE_REROUTED, WHOLE_PLAIN))
        figures = {
            "photographs": Figure(len(part)),
            GAIN: _gain(part, WHOLE_REROUTED, WHOLE_PLAIN),
            "routing moved, %": Figure(100 * float(np.mean([row["moved"][WHOLE_REROUTED] for row in part]))),
            "times as long": Figure(took / plain),
        }
        tables.append(Row(WHOLE, kind, figures))
    for name, arm in ((BASE, WHOLE_PLAIN), ("re-routed", WHOLE_REROUTED)):
        kept = np.array([row["decibels"][arm] for row in parts["clear"]])
        tables.append(Row(CLEAR, name, {"PSNR, dB": bootstrap(kept), "worst, dB": Figure(float(kept.min()))}))
    result = Result(
        room=ROOM,
        paper="R2-T2, arXiv 2502.20395",
        claim="Moving a sample's routing to what served its neighbours improves a frozen mixture, "
        "about half as much as knowing the answer would.",
        verdict="",
        command=command,
        rows=tables,
        seeds=[seed],
        interval="95 % bootstrap, paired, over photographs with all their weathers",
        machine=this_machine(torch.get_num_threads()),
    )
    return judge_pictures(result)


def _arm(rows: Sequence[Measured], arm: str) -> dict[str, Figure]:
    seconds = [row["seconds"][arm] for row in rows]
    figures = {GAIN: _gain(rows, arm, BASE), "CPU seconds more a picture": Figure(float(np.mean(seconds)))}
    if arm != ORACLE:
        oracle = _gains(rows, ORACLE, BASE)
        figures[_SHARE] = bootstrap_percent(_gains(rows, arm, BASE), oracle) if oracle.sum() > 0 else Figure(0.0)
    return figures


def _gain(rows: Sequence[Measured], arm: str, against: str) -> Figure:
    return bootstrap(_gains(rows, arm, against))


def _gains(rows: Sequence[Measured], arm: str, against: str) -> FloatArray:
    """Mean gain (P,) of each photograph over its weathers."""
    by_name: dict[str, list[float]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row["decibels"][arm] - row["decibels"][against])
    return np.array([np.mean(gains) for gains in by_name.values()])


def measured_gain() -> str:
    """A half-sentence with the measured gain over all weathers; says so where nothing was measured. At use nobody knows
    the clean picture, and so what re-routing gains."""
    try:
        gain = load_result(ROOM).figure(WHOLE, ALL, GAIN).text(signed=True)
        return f"measured on photographs held back, this changes PSNR by {gain} dB"
    except ResultError:
        return "what it gains was not measured yet"
