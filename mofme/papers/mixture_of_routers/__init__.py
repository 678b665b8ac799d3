"""Mixture of Routers (arXiv 2503.23362): several sub-routers under a main router choose among LoRA experts.

Its claim: as a plug-in for mixtures of LoRA experts they gain about 1 % on average over a single router.

The paper leaves open what its routers see and how large the banks are. Our reading, as MixLoRA and MoLA do: beside each
wrapped layer a bank of 8 experts of rank 8, alpha 16, dropout .05, two a token, and a router of its own that sees what
the layer sees. We add a control: a wide router with as many parameters as the mixture has.

    python -m mofme evaluate mixture-of-routers texts.csv --arms runs/lora
"""

from mofme.measure.result import Check, Judgement, Result

CLAIMED = 1.0  # points
MEAN = "mean of the tasks"
_GAIN, _OVER_TEXTS = "gain, points", "gain, points, over texts"


def judge(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""
    pairs = [name for name in result.names("differences") if name.startswith(MEAN)]
    over_single = [name for name in pairs if name.endswith("against single router")]
    # Nearer to what is claimed than to nothing.
    parts = [Check(_said(name), result.figure("differences", name, _GAIN), CLAIMED / 2) for name in over_single]
    tasks = result.names("tasks")
    gates = []
    for task in tasks:
        alone = result.figure("tasks", task, "encoder and head alone, %").value
        lora = result.figure("accuracy", f"{task}: single router", "accuracy, %").map(lambda right: right - alone)  # noqa: B023
        gates.append(Check(f"points that LoRA itself adds on {task}", lora, CLAIMED))
    gates.append(Check.least("least gain that the seeds could tell, points", [one.figure for one in parts], CLAIMED))
    judgement = Judgement(
        "several sub-routers under a main one gain about 1 % of accuracy over a single router",
        "our reading of what routers see; controls of as many parameters added",
        f"{len(tasks)} tasks on a frozen sentence encoder against language models of billions of parameters",
        parts,
        gates,
        "tasks on which LoRA gains several points over the frozen model",
    )
    each = []
    for name in pairs:
        seeds, texts = (result.figure("differences", name, column) for column in (_GAIN, _OVER_TEXTS))
        each.append(
            f"{_said(name).capitalize()}: {seeds.text(signed=True, digits=2)}, {seeds.noise()} of the seeds and "
            f"{texts.noise().replace('the noise', 'that of the')} texts."
        )
    return result.judged([judgement], each)


def _said(name: str) -> str:
    arm, control = name.removeprefix(f"{MEAN}: ").split(" against ")
    return f"gain of the {arm} over the {control}, points"
