"""The ways to distil, as a visitor reads them."""

from mofme.language.moe_distillation.methods import METHODS, Method

NAMES: dict[Method, str] = {
    "kd": "KD: true text and teacher",
    "gkd": "GKD: its own text",
    "all": "All experts",
    "top-(n-1)": "All experts but one",
    "ka": "KA: experts by chance",
    "sar": "SAR: routers learn too",
}
CHOICES = [(NAMES.get(method, method), method) for method in METHODS]
FIRST: Method = "ka"
