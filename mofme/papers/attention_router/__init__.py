"""Yuan 2.0-M32's attention router (arXiv 2405.17976) in small language models, beside linear and two-layer ones.

Its claim: a router that accounts for the correlation between experts selects them better than a linear one.

Our readings: the router itself stands in `core/routers.py`; a two-layer router of as many parameters is a control; no
loads are balanced unless all arms are.

    python -m mofme evaluate attention-router --text text.txt --arms runs/attention
"""

from mofme.measure.result import Check, Judgement, Result

CLAIMED = 0.008  # nats, with 8 experts
OVER_SEEDS = "gain, nats a token (seeds)"
ALONG = "along the training, nats a token on held-out text"
TO_SEE = "smallest gain these seeds can tell, nats"


def judge(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""
    linear = result.figure("differences", "attention router against linear router", OVER_SEEDS)
    wide = result.figure("differences", "attention router against two-layer router", OVER_SEEDS)
    size = result.figure("loads and cost", "attention router", "parameters").value
    judgement = Judgement(
        "attention between experts selects them better than a linear router, by .008 nats a token with 8 experts",
        "exact",
        f"{size:,.0f} parameters and {result.names(ALONG)[-1]} against 2 trillion",
        [Check("gain over the linear router, nats a token", linear, CLAIMED / 2)],  # nearer to that
        [Check.least("least gain that these seeds could tell, nats", [linear], CLAIMED)],
        "longer training, and seeds enough to tell so small a gain",
    )
    entropy = {
        router: result.figure("loads and cost", f"{router} router", "load entropy").value
        for router in ("linear", "attention")
    }
    gained = [row.figures["attention router against linear router, gain"] for row in result.rows if row.table == ALONG]
    first, last = (f"{result.names(ALONG)[at]} {gained[at].text(signed=True)}" for at in (0, -1))
    said = [
        f"Along the training it gains over the linear router, after {first} nats a token, after {last}.",
        f"The last is {linear.noise()} of the seeds.",
        f"Over a two-layer router of as many parameters it gains {wide.text(signed=True, digits=4)}, {wide.noise()}.",
        f"Load entropy is {entropy['linear']:.2f} with the linear, {entropy['attention']:.2f} with the attention one.",
    ]
    return result.judged([judgement], said)
