"""MoFME (AAAI 2024, arXiv 2312.16610): what experts and their routers do for the picture, at equal training.

The method itself is the product's: `core/uncertainty.py` (the router), `core/experts.py` (modulated features) and
`vision/nets/`. Here it is taken apart: the same net with other feed-forwards, other routers and no mixture at all.

    python -m mofme evaluate ablation photos/ --arms runs/ablation --out assets/results
    python -m mofme evaluate routers photos/ --arms runs/ablation --out assets/results
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mofme.measure.result import Check, Figure, Judgement, Result

if TYPE_CHECKING:
    from mofme.vision.nets.unet import FeedForwardKind

PARAMETERS, TIME = 72.0, 39.0  # percent saved, with 128 experts
GAIN, GAINED = 0.1, "gain, dB (seeds)"  # the least of the paper's
_WIDE = "small-x4"  # feed-forwards as wide as in the paper
_MOST = "128 experts"
_EQUAL = "four experts at work in both mixtures"
_CLAIMS: Mapping["FeedForwardKind", tuple[str, str, str]] = {
    "generated": (
        "experts generated from the input need over 72 % fewer parameters and 39 % less time than a conventional "
        "mixture's 128",
        f"the authors' experts; {_EQUAL}",
        "a restorer of convolutions on a CPU against a plain transformer on a GPU",
    ),
    "mofme": (
        "the same holds of experts that are two learned vectors each",
        f"our simplification: nothing is generated from the input; {_EQUAL}",
        "as above",
    ),
}


def judge_costs(result: Result) -> Result:
    """The same result of `bench` with its verdict and its rows of the ledger, read off its figures."""
    from mofme.vision.benchmark import saved

    judgements, said = [], []
    for kind, words in _CLAIMS.items():
        table = saved(_WIDE, kind, "moe-top4")
        if _MOST in result.names(table):
            exact = Figure.exact(result.figure(table, _MOST, "parameters saved, %").value)
            time = result.figure(table, _MOST, "time saved, %")
            parts = [Check("parameters saved, %", exact, PARAMETERS), Check("time saved, %", time, TIME)]
            gate = Check.least("least saving of time that the repeats could tell, %", [time], TIME)
            judgements.append(Judgement(*words, parts, [gate]))
    for backbone in (table.removeprefix("Cost on ") for table in result.tables() if table.startswith("Cost on ")):
        usual, equal = saved(backbone), saved(backbone, rival="moe-top4")
        for count in result.names(usual):
            parameters = result.figure(equal, count, "parameters saved, %").value
            times = [result.figure(table, count, "time saved, %").value for table in (equal, usual)]
            said.append(
                f"With {count} on {backbone} ours saves {parameters:.0f} % of parameters and {times[0]:.0f} % of time, "
                f"{times[1]:.0f} % against two at work."
            )
    return result.judged(judgements, said or ["Nothing was compared with the paper's claim: one expert is no mixture."])


def judge_restorers(result: Result) -> Result:
    """The same of `bench restorers`, which no claim of the paper is read off: the first model beside the best other."""
    from mofme.vision.comparison import BASELINES, COST, NOTHING

    said = []
    for table in [table for table in result.tables() if table != COST]:
        others = [name for name in result.names(table) if name in BASELINES or name.endswith(".onnx")]
        ours = next(name for name in result.names(table) if name not in (NOTHING, *others))
        gains = {name: result.figure(table, name, "PSNR gain, dB") for name in (ours, *others)}
        best = max(others, key=lambda name: gains[name].value)
        said.append(f"{table}: {', '.join(f'{name} {gains[name].text(signed=True)}' for name in (ours, best))}")
    return result.judged([], [f"What is gained in PSNR, dB, by ours and by the best of the others: {'; '.join(said)}."])


_QUALITY = {
    ("MoFME", "experts that modulate, under an uncertainty-aware router, restore .1 to .2 dB better"): (
        "experts are two learned vectors; how uncertainty is scaled is our reading",
        {"the conventional mixture": "conventional MoE", "a linear router": "MoFME, linear router"},
    ),
    ("MoFME, authors' generators", "experts generated from the input restore .1 to .2 dB better"): (
        "the authors' experts; how uncertainty is scaled is our reading",
        {"the conventional mixture": "conventional MoE"},
    ),
}


def judge_quality(result: Result) -> Result:
    """The same of the ablation."""
    judgements, said = [], []
    steps = result.option("--steps") or 2000
    for (ours, claim), (departs, rivals) in _QUALITY.items():
        rows = {name: f"{ours}, 16 experts minus {rival}, 16 experts" for name, rival in rivals.items()}
        gains = {name: figure for name, row in rows.items() if (figure := result.known("differences", row, GAINED))}
        if len(gains) < len(rivals):
            continue
        judgements.append(
            Judgement(
                claim,
                departs,
                f"{steps} steps and {len(result.seeds)} seeds of a small net against 200 epochs",
                # Nearer to what is claimed than to nothing.
                [Check(f"gain over {name}, dB", gain, GAIN / 2) for name, gain in gains.items()],
                [Check.least("least effect that the seeds could tell, dB", gains.values(), GAIN)],
                "more seeds, and arms trained for longer",
            )
        )
        said += [
            f"With 16 experts the gain of {ours} over {name} is {gain.text(signed=True, digits=2)} dB, "
            f"{gain.noise()} of the seeds."
            for name, gain in gains.items()
        ]
    ranked = {
        row.name: row.figures["Spearman, parts of a picture"] for row in result.rows if row.table == "uncertainty"
    }
    if ranked:
        told = "; ".join(f"{name} {figure.text(signed=True, digits=2)}" for name, figure in ranked.items())
        said.append(f"How it ranks the errors within a picture, where 0 is chance: {told}.")
    return result.judged(judgements, said)
