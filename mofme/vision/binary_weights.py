"""Which weights of a restorer may be of one bit, and how fast those learn."""

BINARY_RATE = 10.0


def stays_real(name: str) -> bool:
    """Whether the layer of a restoration net that is called so keeps real weights."""
    return name.startswith(("stem", "head", "context", "weather")) or name.endswith("router.score")
