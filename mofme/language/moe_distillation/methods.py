"""The ways to distil that are compared, each in one plain sentence."""

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
