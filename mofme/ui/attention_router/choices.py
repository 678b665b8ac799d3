"""The routers as visitors know them, by the names they have in the room."""

NAMES = {"linear": "Linear", "mlp": "MLP", "attention": "Attention"}
