"""What MoFME claims, of costs and of quality, and what it is worth here."""

import math

from mofme.measure.result import Check, Figure, Judgement, Result

PARAMETERS, TIME = 72.0, 39.0  # percent saved, with 128 experts
GAIN = 0.1  # dB, the least of the paper's
_WIDE = "small-x4"  # feed-forwards as wide as in the paper
_SAVED = "Saved by MoFME on {}, against the conventional MoE"


def judge_costs(result: Result) -> Result:
    """The same result of `bench` with its verdict and its rows of the ledger, read off its figures."""
    judgements, said = [], []
    table, most = f"Cost on {_WIDE}", "128 experts"
    own, theirs = f"MoFME, {most}", f"MoFME, authors' generators, {most}"
    rival = f"conventional MoE, {most}"
    if {own, theirs, rival} <= set(result.names(table)):
        parameters = {name: result.figure(table, name, "parameters, M").value for name in (theirs, rival)}
        time = {name: result.figure(table, name, "time, ms") for name in (theirs, rival)}
        doubled = time[rival].map(lambda ms: 2 * ms)
        judgements = [
            Judgement(
                "experts generated from the input need over 72 % fewer parameters and 39 % less time than a "
                "conventional mixture's 128",
                "the authors' experts; MoFME has four at work, the conventional mixture two, so its time counts twice",
                "a restorer of convolutions on a CPU against a plain transformer on a GPU",
                [
                    Check(
                        "parameters saved, %",
                        Figure.exact(100 * (1 - parameters[theirs] / parameters[rival])),
                        PARAMETERS,
                    ),
                    Check(
                        "time saved, against twice the conventional mixture's, %", _saved(time[theirs], doubled), TIME
                    ),
                ],
            ),
            Judgement(
                "the same holds of experts that are two learned vectors each",
                "our simplification: nothing is generated from the input; four experts at work against two",
                "as above",
                [
                    Check("parameters saved, %", _exact(result, most, "parameters saved, %"), PARAMETERS),
                    Check("time saved, %", result.figure(_SAVED.format(_WIDE), most, "time saved, %"), TIME),
                ],
            ),
        ]
        said.append(
            f"In time the authors' experts take {_times(time[theirs], time[rival])} times the conventional mixture's."
        )
    tables = [
        _SAVED.format(table.removeprefix("Cost on ")) for table in result.tables() if table.startswith("Cost on ")
    ]
    for table in tables:
        where = table.removeprefix("Saved by MoFME on ").partition(",")[0]
        for count in result.names(table):
            saved = (result.figure(table, count, f"{what} saved, %").value for what in ("parameters", "time"))
            said.append(
                "With {} on {} ours saves {:.0f} % of parameters and {:.0f} % of time.".format(count, where, *saved)
            )
    return result.judged(judgements, said or ["Nothing was compared with the paper's claim: one expert is no mixture."])


def judge_quality(result: Result) -> Result:
    """The same of the ablation."""
    against = {
        "the conventional mixture": "MoFME, 16 experts minus conventional MoE, 16 experts",
        "a linear router": "MoFME, 16 experts minus MoFME, linear router, 16 experts",
    }
    gains = {
        name: figure
        for name, row in against.items()
        if (figure := result.known("differences", row, "gain, dB (seeds)")) is not None
    }
    widest = max((gain.half for gain in gains.values()), default=math.inf)
    least = Figure.exact(widest) if math.isfinite(widest) else Figure(0.0)
    judgement = Judgement(
        "experts that modulate, under an uncertainty-aware router, restore .1 to .2 dB better",
        "experts are two learned vectors; how uncertainty is scaled is our reading",
        f"{result.option('--steps')} steps and {len(result.seeds)} seeds of a small net against 200 epochs",
        [Check(f"gain over {name}, dB", gain) for name, gain in gains.items()],
        [Check("least effect that the seeds could tell, dB", least, GAIN, below=True)],
        "more seeds, and arms trained for longer",
    )
    said = [
        f"With 16 experts the gain over {name} is {gain.text(signed=True, digits=2)} dB, {gain.noise()} of the seeds."
        for name, gain in gains.items()
    ]
    for row in [row for row in result.rows if row.table == "uncertainty"][-2:]:  # those of what ships
        within = row.figures["Spearman, parts of a picture"]
        than = {1: "better than", 0: "no better than", -1: "worse than"}[within.side()]
        said.append(f"In a picture {row.name} ranks the errors {than} chance: {within.text(signed=True, digits=2)}.")
    return result.judged([judgement], said)


def _exact(result: Result, count: str, column: str) -> Figure:
    return Figure.exact(result.figure(_SAVED.format(_WIDE), count, column).value)


def _saved(taken: Figure, of: Figure) -> Figure:
    """Percent of time saved, each at the worse end of its own interval."""
    value = 100 * (1 - taken.value / of.value)
    if None in (taken.low, taken.high, of.low, of.high):
        return Figure(value)
    return Figure(value, 100 * (1 - (taken.high or 0) / (of.low or 1)), 100 * (1 - (taken.low or 0) / (of.high or 1)))


def _times(taken: Figure, of: Figure) -> str:
    return f"{taken.value / of.value:.1f}"
