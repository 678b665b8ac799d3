"""What Every Expert Matters claims, and what it is worth here."""

from mofme.measure.result import Check, Figure, Judgement, Result


def judge(result: Result) -> Result:
    """The same result with its verdict and its row of the ledger, read off its figures."""
    gain = "gain over the student, nats"
    teacher, whole = result.figure("models", "teacher", gain), result.known("models", "teacher, all experts", gain)
    before, taught = (result.figure("students", name, "cross-entropy, nats") for name in ("before", "gkd"))
    size = result.figure("models", "teacher", "parameters, M").value
    gates = [
        Check("what the teacher has over its student, nats", teacher),
        Check("what GKD alone teaches, gain in nats of cross-entropy", taught.map(lambda nats: before.value - nats)),
    ]
    if whole:  # the difference has no interval here, and a gate without one is not passed
        gates.insert(1, Check("what idle experts add to their own teacher, nats", Figure(whole.value - teacher.value)))
    parts = [
        Check(
            f"{method.upper()} against GKD, gain in {what}", result.figure("differences", f"{method} against gkd", name)
        )
        for method in ("ka", "sar")
        for what, name in (("ROUGE-L", "gain, ROUGE-L, points"), ("nats of cross-entropy", "gain, cross-entropy"))
    ]
    judgement = Judgement(
        "a student learns more from the experts that its teacher leaves idle (KA, SAR) than without them (GKD)",
        "as published; all responses are of one length",
        f"teacher of {size:.2f} M parameters, trained here, against 3,000 M and more",
        parts,
        gates,
        "a teacher whose idle experts lower its own loss, and students that gain when they are taught at all",
    )
    against = [f"{part.name} {part.figure.text(signed=True)}." for part in parts]
    every = result.figure("differences", "ka against all", "gain, ROUGE-L, points")
    drawing = (
        f"Drawing experts by chance is worth {every.text(signed=True)} points of ROUGE-L beside using all of them."
    )
    return result.judged([judgement], [*against, drawing])
