"""From what was measured of re-routed pictures to tables and the verdict."""

from collections.abc import Sequence

import numpy as np
import torch

from mofme.measure.result import Figure, Result, Row, this_machine
from mofme.measure.statistics import FloatArray, bootstrap, bootstrap_percent
from mofme.vision.rerouting.gain import ALL, GAIN, ROOM, WHOLE
from mofme.vision.rerouting.measurement import (
    BASE,
    ORACLE,
    TEST_CROP,
    WHOLE_PLAIN,
    WHOLE_REROUTED,
    Measured,
)
from mofme.vision.rerouting.references import References
from mofme.vision.weather import WEATHERS

CROPS = f"crops of {TEST_CROP} pixels"
BY_WEATHER = "crops by weather"
CLEAR = "clear photographs, compared with themselves"
_SHARE = "share of the oracle's gain, %"



def as_result(rows: Sequence[Measured], references: References, command: str, seed: int) -> Result:
    """Everything that `measure` measured, beside the paper's claim; photographs are what the bootstrap draws."""
    weathered = [row for row in rows if row["kind"] != "clear"]
    arms = [arm for arm in rows[0]["decibels"] if arm not in (BASE, WHOLE_PLAIN, WHOLE_REROUTED)]
    tables = [Row(CROPS, arm, _arm(weathered, arm)) for arm in arms]
    tables += [
        Row(BY_WEATHER, arm, {f"{kind}: gain, dB": _gain(_of(rows, kind), arm, BASE) for kind in WEATHERS})
        for arm in arms
    ]
    for kind in (*WEATHERS, ALL):
        part = weathered if kind == ALL else _of(rows, kind)
        tables.append(
            Row(
                WHOLE,
                kind,
                {
                    "photographs": Figure(len(part)),
                    GAIN: _gain(part, WHOLE_REROUTED, WHOLE_PLAIN),
                    "routing moved, %": Figure(100 * float(np.mean([row["moved"][WHOLE_REROUTED] for row in part]))),
                    "times as long": Figure(
                        sum(row["seconds"][WHOLE_REROUTED] for row in part)
                        / sum(row["seconds"][WHOLE_PLAIN] for row in part)
                    ),
                },
            )
        )
    clear = _of(rows, "clear")
    for name, arm in (("as its routers say", WHOLE_PLAIN), ("re-routed", WHOLE_REROUTED)):
        kept = np.array([row["decibels"][arm] for row in clear])
        tables.append(Row(CLEAR, name, {"PSNR, dB": bootstrap(kept), "worst, dB": Figure(float(kept.min()))}))
    return Result(
        room=ROOM,
        paper="R2-T2, arXiv 2502.20395",
        claim="Moving a sample's routing to what served its neighbours improves a frozen mixture, "
        "about half as much as knowing the answer would.",
        verdict=_verdict(weathered, references),
        command=command,
        rows=tables,
        seeds=[seed],
        interval="95 % bootstrap, paired, over photographs with all their weathers",
        machine=this_machine(torch.get_num_threads()),
    )


def _of(rows: Sequence[Measured], kind: str) -> list[Measured]:
    return [row for row in rows if row["kind"] == kind]


def _arm(rows: Sequence[Measured], arm: str) -> dict[str, Figure]:
    seconds = [row["seconds"][arm] for row in rows]
    figures = {GAIN: _gain(rows, arm, BASE), "CPU seconds more a picture": Figure(float(np.mean(seconds)))}
    return figures if arm == ORACLE else {**figures, _SHARE: _share(rows, arm)}


def _gains(rows: Sequence[Measured], arm: str, against: str) -> FloatArray:
    """Mean gain (P,) of each photograph over its weathers."""
    by_name: dict[str, list[float]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row["decibels"][arm] - row["decibels"][against])
    return np.array([np.mean(gains) for gains in by_name.values()])


def _gain(rows: Sequence[Measured], arm: str, against: str) -> Figure:
    return bootstrap(_gains(rows, arm, against))


def _share(rows: Sequence[Measured], arm: str) -> Figure:
    return bootstrap_percent(_gains(rows, arm, BASE), _gains(rows, ORACLE, BASE))


def _verdict(rows: Sequence[Measured], references: References) -> str:
    descent, oracle = (_gain(rows, arm, BASE) for arm in ("gradient descent", ORACLE))
    shipped = _gain(rows, WHOLE_REROUTED, WHOLE_PLAIN)
    return (
        f"Gradient descent on neighbours {_does(descent)} by {descent.text(signed=True)} dB, "
        f"{_share(rows, 'gradient descent').value:.0f} % of the oracle's {oracle.text(signed=True)} dB; on whole "
        f"photographs {references.choices.method}, which ships, {_does(shipped)} by {shipped.text(signed=True)} dB."
    )


def _does(gain: Figure) -> str:
    return {1: "raises PSNR", 0: "changes PSNR within the noise,", -1: "lowers PSNR"}[gain.side()]
