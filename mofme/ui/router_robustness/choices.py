"""The routers that a visitor may have probed."""

CARROT, GUARDED, RULE, COIN, STRONG = (
    "CARROT, shipped",
    "CARROT, guarded",
    "complexity rule",
    "coin flip",
    "always strong",
)
ROUTERS = (CARROT, GUARDED, RULE, COIN, STRONG)
