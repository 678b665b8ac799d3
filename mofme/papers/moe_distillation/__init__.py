"""Every Expert Matters (arXiv 2502.12947): a mixture teaches a smaller model, also with experts it leaves idle.

Our readings: every response has the same number of tokens, and the student's rate falls to 0 along a line. SAR's
routers learn at a tenth of the student's rate, as the authors' 1e-6 is of the 1e-5 of their other students.

    python -m mofme distil converted smollm2 --layers 15 --text text.txt --out student
    python -m mofme evaluate distillation texts --arms arms
"""

from typing import Literal

from mofme.measure.result import Check, Figure, Judgement, Result

Method = Literal["kd", "gkd", "all", "top-(n-1)", "ka", "sar"]

METHODS: dict[Method, str] = {
    "kd": "The student reads true text and learns from it and from the teacher's predictions in equal parts.",
    "gkd": "The student writes, and learns the teacher's predictions for its own text.",
    "all": "As gkd, with all experts of the teacher at work.",
    "top-(n-1)": "As gkd, with all experts of the teacher but the one each token needs least: the control for ka.",
    "ka": "As top-(n-1), averaged over two teachers that now and then draw their experts by chance.",
    "sar": "As all, while the teacher's routers learn in turn from what the student makes of it.",
}


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
    said = [f"{part.name} {part.figure.text(signed=True)}." for part in parts]
    every = result.figure("differences", "ka against all", "gain, ROUGE-L, points").text(signed=True)
    said.append(f"Drawing experts by chance is worth {every} points of ROUGE-L beside using all of them.")
    return result.judged([judgement], said)
