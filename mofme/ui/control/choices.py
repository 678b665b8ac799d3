"""Who may choose the expert."""

ROUTER, TREE = CHOOSERS = ("The router", "A decision tree")
