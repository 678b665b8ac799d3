"""BinaryConnect (arXiv 1511.00363): a net works with weights of one bit, and learns with real ones.

The claim: they regularise; permutation-invariant MNIST at 1.29 % (deterministic) and 1.18 % (stochastic) test error,
against 1.30 % without a regulariser. `core/binary.py` is the method; here are the paper's net for digits, Algorithm 1,
what we measured of it, and of a restorer with such weights (`restorer_experiment`).

    python -m mofme binary train mnist.npz --runs runs/
    python -m mofme binary evaluate mnist.npz --runs runs/
    python -m mofme binary restorer photographs/
"""

from mofme.measure.result import Check, Figure, Judgement, Result


def judge(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""
    from mofme.measure.statistics import difference_of_means
    from mofme.papers.binaryconnect.net import BINARY, DROPOUT, FLOAT

    arms = result.names("test error")

    def error(arm: str) -> Figure:
        return result.figure("test error", arm, "error, %")

    def published(arm: str) -> float:
        return result.figure("test error", arm, "published, %").value

    def seeds_of(arm: str) -> int:
        return int(result.figure("test error", arm, "seeds").value)

    epochs, seeds = (result.figure("test error", arms[0], name).value for name in ("epochs", "seeds"))
    said = [
        f"{arm.capitalize()}: {error(arm).value:.2f} % of the test digits ({published(arm):.2f} published)."
        for arm in arms
    ]
    if packed := result.names("size on disk"):
        sizes = [result.figure("size on disk", name, "times smaller").value for name in packed]
        differing = [result.figure("size on disk", name, "predictions that differ").value for name in packed]
        said.append(
            f"Packed, the file is {min(sizes):.1f} times smaller and at most {max(differing):.0f} predictions differ."
        )
    if not {FLOAT, DROPOUT, *BINARY} <= set(arms):
        return result.judged([], said)
    margin = round(published(FLOAT) - published(DROPOUT), 2)  # what the paper itself takes for a difference
    parts = [
        Check(
            f"error of {arm} above that of real weights, points",
            difference_of_means(error(arm), error(FLOAT), (seeds_of(arm), seeds_of(FLOAT))),
            margin,
            below=True,
        )
        for arm in arms
        if arm in BINARY
    ]
    judgement = Judgement(
        "nets whose weights are -1 and +1 err on MNIST no more often than nets of real weights",
        "exact",
        f"the paper's net and data; {epochs:.0f} epochs and {seeds:.0f} seeds against 1,000 epochs",
        parts,
        [Check.least("least difference that the seeds could tell, points", [part.figure for part in parts], margin)],
        "more seeds",
    )
    return result.judged([judgement], said)
