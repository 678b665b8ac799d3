"""CARROT (arXiv 2502.03261): which of several language models to ask, prompt by prompt.

Claim: estimating each model's quality and cost for a prompt and letting the plug-in rule choose beats other routers,
comes near the best single model at a fraction of its cost, and learns at the best possible rate.

Our readings: prompts are embedded by MiniLM, without their worked examples; the paper's estimator is nearest
neighbours with a k for each model, of quality and of cost. What ships is ours: quality by a stacked ensemble of nearest
neighbours, ridge regression, a network and task means, cost from the prompt's length. Prompts that are near-duplicates
never stand on both sides of a split; a control knows each task's means and nothing else.

`carrot` is the paper on one page. What it learns with: `estimators`, `ensemble`. What it is held against: `baselines`,
`curve`, `comparison`; the rate: `simulation`. In use: `trained_router`, `serving`.

    python -m mofme route "a prompt" --budget 0.001        python -m mofme route train TABLE --out FOLDER
    python -m mofme route evaluate TABLE...                 python -m mofme route simulate
"""

from collections.abc import Sequence

from mofme.measure.result import Check, Figure, Judgement, Result

JUDGED, OURS = "carrot", "stacked ensemble"
DOLLARS = "dollars per 1,000 prompts to do as well as the best single model"
R2 = "R2 of expected costs, mean of the models"
FRACTION = 50.0  # percent of the best single model's cost
_PUBLISHED = {"RouterBench, 3 tasks", "LLMRouter", "MMLU-Pro"}
_SCALE = (
    "three tasks of RouterBench, LLMRouter's questions and MMLU-Pro, of 3,000 to 12,000 prompts and 9 to 11 models, "
    "against all of RouterBench, and SPROUT"
)
_METHOD = "k nearest neighbours with a k for each model, as published; sentences embedded by a smaller encoder"


def judge(result: Result) -> Result:
    """The same result with its verdict and its rows of the ledger, read off its figures."""
    tables = list(dict.fromkeys(row.table.rpartition(": ")[0] for row in result.rows))
    near = [
        Check(f"{table}: money for 95 % of the quality, %", money, FRACTION, below=True)
        for table in tables
        if (money := _money(result, table, JUDGED, 95))
    ]
    scale = _SCALE if set(tables) <= _PUBLISHED else ", ".join(tables)
    above_hull, above_tasks = (
        [
            Check(f"{table}: AIQ, gain over the {control}", gain)
            for table in tables
            if (gain := _gain(result, table, JUDGED, control))
        ]
        for control in ("hull", "task table")
    )
    judgements = [
        Judgement(
            "estimates come near the best single model for a fraction of its money, above mixtures at random",
            _METHOD,
            scale,
            [*near, *above_hull],
            _oracle(result, tables, "hull"),
        ),
        Judgement(
            "estimates of each prompt choose better than a table of each task's means",
            f"{_METHOD}; the table is our control, not the paper's",
            scale,
            above_tasks,
            _oracle(result, tables, "task table"),
            "tables in which models differ within a task",
        ),
    ]
    return result.judged(judgements, [sentence for table in tables for sentence in _table(result, table)])


def _oracle(result: Result, tables: Sequence[str], control: str) -> list[Check]:
    """Whether choosing could gain over a control at all: what an oracle does beside it."""
    known = {table: [result.known(f"{table}: AIQ", name, "AIQ") for name in ("oracle", control)] for table in tables}
    return [
        Check(f"{table}: AIQ of the oracle, beside the {control}'s", oracle, other.value)
        for table, (oracle, other) in known.items()
        if oracle and other
    ]


def _table(result: Result, table: str) -> list[str]:
    """A table's sentences: money, cost prediction, and what our ensemble adds."""
    said = []
    for share in (100, 95):
        if figure := _money(result, table, JUDGED, share):
            value, *interval = figure.text(digits=0).split(" ", 1)
            money = " ".join([f"{value} %", *interval])
            said.append(f"{table}: {share} % of the best single model's quality for {money} of its money.")
    if r2 := result.known(f"{table}: {R2}", JUDGED, "R2"):
        said.append(f"CARROT's costs are expected with an R2 of {r2.text(digits=2)}.")
    for router, words in ((JUDGED, "CARROT"), (OURS, "Our stacked ensemble")):
        if gain := _gain(result, table, router, "task table"):
            side = {1: "above", 0: "level with", -1: "below"}[gain.side()]
            said.append(f"{words} is {side} the task table in AIQ by {gain.text(signed=True, digits=3)}.")
    return said


def _money(result: Result, table: str, router: str, share: int) -> Figure | None:
    """Percent of the best single model's money for this share of its quality; None where that costs nothing."""
    column = f"for {share}% of its quality"
    figure = result.known(f"{table}: {DOLLARS}", router, column)
    best = result.known(f"{table}: {DOLLARS}", "best single", column)
    return figure.map(lambda dollars: 100 * dollars / best.value) if figure and best and best.value else None


def _gain(result: Result, table: str, router: str, control: str) -> Figure | None:
    return result.known(f"{table}: AIQ", router, f"AIQ, gain over the {control}")


def judge_rate(result: Result) -> Result:
    """The same of the simulation."""
    table, optimal, blind = "Exponent of n in the excess risk", "window of the optimal order", "window of 64 queries"
    best = {name: result.figure(table, name, "best possible").value for name in result.names(table)}
    # Half of what a rule that never gathers more queries is short by: nearer to the best than to that.
    nearest = min(best, key=lambda name: result.figure(table, name, blind).value - best[name])
    unable = result.figure(table, nearest, blind).map(lambda exponent: exponent - best[nearest])
    margin = round(unable.value / 2, 2)
    parts = [
        Check(
            f"exponent of n beside the best possible, {name}",
            result.figure(table, name, optimal).map(lambda exponent: exponent - best[name]),  # noqa: B023
            margin,
            below=True,
        )
        for name in best
    ]
    judgement = Judgement(
        "the plug-in rule learns from recorded queries at the best rate that any router could",
        "exact: simulated worlds whose best choice is known",
        f"{len(best)} worlds of one to three dimensions against a proof for all",
        parts,
        [Check("exponent of a rule that never gathers more, beside the best possible", unable, margin)],
        "more recorded queries in worlds where a window gathers few",
    )
    worst = [result.figure(table, name, blind).value for name in best]
    short = sum(part.figure.value > 0 for part in parts)
    said = [
        f"It is short of the best possible in {short} of {len(parts)} worlds, and nowhere by more than {margin:g}.",
        f"A rule that never gathers more than 64 queries hardly learns: {min(worst):.2f} to {max(worst):.2f}.",
    ]
    return result.judged([judgement], said)
