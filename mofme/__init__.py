"""Clear pictures from bad weather by a mixture of feature-modulation experts (MoFME)."""

import mofme._torchvision  # noqa: F401 - must come before anything that imports torchvision

__version__ = "0.1.0"
