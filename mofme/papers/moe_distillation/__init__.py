"""Every Expert Matters (arXiv 2502.12947): a mixture teaches a smaller model, also with experts it leaves idle.

Our readings: every response has the same number of tokens, and the student's rate falls to 0 along a line. SAR's
routers learn at a tenth of the student's rate, as the authors' 1e-6 is of the 1e-5 of their other students.

    python -m mofme distil converted smollm2 --layers 15 --text text.txt --out student
    python -m mofme evaluate distillation texts --arms arms
"""

from typing import Literal

Method = Literal["kd", "gkd", "all", "top-(n-1)", "ka", "sar"]

METHODS: dict[Method, str] = {
    "kd": "The student reads true text and learns from it and from the teacher's predictions in equal parts.",
    "gkd": "The student writes, and learns the teacher's predictions for its own text.",
    "all": "As gkd, with all experts of the teacher at work.",
    "top-(n-1)": "As gkd, with all experts of the teacher but the one each token needs least: the control for ka.",
    "ka": "As top-(n-1), averaged over two teachers that now and then draw their experts by chance.",
    "sar": "As all, while the teacher's routers learn in turn from what the student makes of it.",
}
