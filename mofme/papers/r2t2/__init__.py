"""Test-time re-routing, R2-T2 (arXiv 2502.20395): experts as they served pictures, or questions, like this one.

Its claim: moving a sample's routing towards that of its solved neighbours improves a frozen mixture, about half as much
as knowing the answer would.

A reference set of synthesized pairs that the net solved is kept as numbers: where each lies in the net's own features,
how it was routed, and the step by which gradient descent would have routed it better. Our readings for pictures: the
net's own encoder embeds them, and every tile of a picture is shifted by the same, so that no seams show.

    python -m mofme build-references photos/ --out references --pairs
    python -m mofme evaluate rerouting pictures photos/ --references references --work runs/rerouting
    python -m mofme evaluate rerouting text converted/ --pool train.jsonl --test test.jsonl --work runs/rerouting
"""

from mofme.measure.result import Check, Figure, Judgement, Result

CLAIM = "moving a {}'s routing towards solved neighbours' improves a frozen mixture, by half of an oracle's gain"
CHANCE = 25.0  # percent, of four choices
ENOUGH = 500  # references: a tenth of the paper's
HALF = 25.0  # percent: nearer to half of it than to nothing
_DESCENT = "gradient descent"
_SHARE = "share of the oracle's gain, %"
_SETTING = "setting"


def judge_pictures(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""
    table, whole = "crops of 128 pixels", "whole photographs"
    gain = result.figure(table, _DESCENT, "gain, dB")
    oracle = result.figure(table, "oracle: descent on the picture's own loss", "gain, dB")
    share = result.figure(table, _DESCENT, _SHARE)
    pairs = result.figure(_SETTING, "references", "pairs").value
    judgement = Judgement(
        CLAIM.format("picture"),
        "on a restorer's routers, every tile shifted alike",
        f"{pairs:.0f} references of one restorer against thousands for each of eight benchmarks",
        [Check("gain by neighbours, dB", gain), Check(_SHARE, share, HALF)],
        [Check("gain of the oracle, dB", oracle), Check("solved references", Figure.exact(pairs), ENOUGH)],
        "a reference set some ten times as large",
    )
    shipped = result.figure(whole, "all weathers", "gain, dB")
    does = {1: "raises PSNR", 0: "changes PSNR within the noise,", -1: "lowers PSNR"}[shipped.side()]
    said = [
        f"The oracle gains {oracle.text(signed=True)} dB.",
        f"Of that neighbours find {share.text(digits=0)} %.",
        f"On whole photographs the method that tuning chose, which ships, {does} by {shipped.text(signed=True)} dB.",
    ]
    return result.judged([judgement], said)


def judge_text(result: Result) -> Result:
    """The same of multiple choice."""
    plain = result.figure("accuracy", "as its routers say", "right, %")
    table = "against the routers' own choice"
    oracle, gain = (
        result.figure(table, name, "gain, points of accuracy")
        for name in ("oracle: descent on the question's own loss", _DESCENT)
    )
    known, asked = (result.figure(_SETTING, "questions", name).value for name in ("references", "measured"))
    judgement = Judgement(
        CLAIM.format("question"),
        "on a language model converted with few tokens",
        f"{known:.0f} references, {asked:.0f} questions against thousands",
        [
            Check("gain by neighbours, points of accuracy", gain),
            Check(_SHARE, gain.map(lambda points: 100 * points / max(oracle.value, 1e-9)), HALF),
        ],
        [
            Check("questions that the model answers, %", plain, CHANCE),
            Check("gain of the oracle, points of accuracy", oracle),
            Check("solved references", Figure.exact(known), ENOUGH),
        ],
        "a mixture that answers more questions than chance does, and more of them solved",
    )
    nats, random = (
        result.figure(table, name, "gain, nats of the right choice")
        for name in (_DESCENT, "control: gradient descent on random references")
    )
    said = [
        f"The oracle gains {oracle.text(signed=True)} points.",
        f"The right choice gains {nats.text(signed=True)} nats by neighbours.",
        f"By random references it gains {random.text(signed=True)}.",
    ]
    return result.judged([judgement], said)
