"""LaDiMo (arXiv 2408.04278): a dense language model becomes a mixture of experts, layer by layer, with few tokens.

The paper leaves open how many experts there are, how they begin, what the router is and which policies it chooses from.
Our readings stand where they are used: how neurons become experts and what a layer learns in `layer_training`, which of
them a token visits and how many it can do without in `converted_layer`.

    python -m mofme moefy smollm2 --text text.txt --out converted
    python -m mofme evaluate dense-to-moe smollm2 --text text.txt --questions arc.jsonl --arms arms
"""

from mofme.measure.result import Check, Figure, Judgement, Result

DENSE, OURS = "dense", "converted, policies chosen"
SAVED = 20.0  # percent of the activated parameters
KEPT = 0.97  # of the dense model's accuracy
CHANCE = 25.0  # percent, of four choices
ACCURACY = "accuracy, normalized, %"
_AGAINST = {
    "a random split": "random split, policies chosen",
    "static pruning": "static pruning, sizes chosen",
    "a uniform top-k": "converted, uniform top-k",
    "CMoE's way": "CMoE-like, untrained, uniform top-k",
}
FRONTIER = "frontier: built for the target, other policies chosen; first seed"


def judge(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""

    def quality(arm: str, column: str) -> Figure:
        return result.figure("quality", arm, column)

    dense, ours = quality(DENSE, ACCURACY), quality(OURS, ACCURACY)
    lost = result.figure("differences", f"{OURS} against dense", "gain, points of normalized accuracy")
    allowed = (1 - KEPT) * dense.value
    gates = [
        Check("normalized accuracy of the dense model, %", dense, CHANCE),
        Check.least("least loss of accuracy that the questions could tell, points", [lost], allowed),
    ]
    saved, tokens = quality(OURS, "saved, %").value, f"{int(result.option('--tokens') or 100_000):,}"
    judgement = Judgement(
        f"with {tokens} tokens a dense model becomes a mixture of over 20 % fewer activated parameters and keeps "
        "97 % of its accuracy",
        "our reading: experts, router and policies are not published",
        f"135 M parameters against 7,000 M; {tokens} tokens against 100,000",
        [
            Check("activated parameters saved, %", Figure.exact(saved), SAVED),
            Check("change of normalized accuracy, points", lost, -allowed),
        ],
        gates,
        f"about {(lost.half / max(allowed, 1e-9)) ** 2:,.0f} times as many questions",
    )
    perplexity = [quality(arm, "perplexity").value for arm in (DENSE, OURS)]
    said = [
        f"With {saved:.1f} % fewer activated parameters a token costs {_nats(result, 'dense', -1)}.",
        f"Perplexity goes from {perplexity[0]:.1f} to {perplexity[1]:.1f}.",
        f"Normalized accuracy goes from {dense.value:.1f} to {ours.value:.1f} %.",
    ]
    for name in result.names(FRONTIER):
        if name.startswith(OURS):
            at = (result.figure(FRONTIER, name, column).value for column in ("saved, %", "perplexity"))
            said.append("With {:.0f} % fewer activated parameters perplexity is {:.1f}.".format(*at))
    said += [f"The gain over {name} is {_nats(result, arm)} a token." for name, arm in _AGAINST.items()]
    read, write = (
        result.figure("CPU time of one thread", OURS, f"{what}: saved, %").value
        for what in ("read 256 tokens", "write one token")
    )
    said.append(f"CPU time to read changes by {0 - read:+.0f} %, to write by {0 - write:+.0f} %.")
    return result.judged([judgement], said)


def _nats(result: Result, arm: str, sign: int = 1) -> str:
    figure = result.figure("differences", f"{OURS} against {arm}", "gain, nats a token").map(lambda nats: sign * nats)
    return f"{figure.value:+.3f} nats" + ("" if figure.low is None else f" ({figure.noise()})")
