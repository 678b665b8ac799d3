"""Clear pictures from bad weather by a mixture of feature-modulation experts (MoFME).

What users import has a name here, whatever the folders below are called: `from mofme import Restorer`. A name is looked
up when it is asked for, so that `import mofme` loads neither torch nor anything else that is slow.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

import mofme._torchvision  # noqa: F401 - must come before anything that imports torchvision

# torch reads it when it is loaded: of its 1,024 compiled kernels these are enough. See `mofme.vision.restorer`.
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")

__version__ = "0.1.0"

__all__ = [
    "ArchiveError",
    "Cancelled",
    "CarrotRouter",
    "ConfigError",
    "Experts",
    "FeatureModulatedExperts",
    "FeedForwardExperts",
    "LinearRouter",
    "LoraMixture",
    "Lpips",
    "MoE",
    "ModelCard",
    "ModelError",
    "MofmeError",
    "PictureError",
    "PictureTooLargeError",
    "Restoration",
    "Restorer",
    "ResultError",
    "Router",
    "RoutingDecision",
    "RoutingMap",
    "RoutingTable",
    "TableError",
    "TrainedRouter",
    "UncertaintyRouter",
    "available_models",
    "importance_loss",
    "load_table",
    "observe_routing",
    "psnr",
    "read_picture",
    "replace_routing",
    "restore_video",
    "ssim",
    "switch_loss",
    "synthesize",
    "write_picture",
]

_HOMES = {
    "mofme.core.experts": "FeatureModulatedExperts FeedForwardExperts",
    "mofme.core.losses": "importance_loss switch_loss",
    "mofme.core.moe": "MoE observe_routing replace_routing",
    "mofme.core.routers": "LinearRouter",
    "mofme.core.routing": "Experts Router RoutingDecision",
    "mofme.core.uncertainty": "UncertaintyRouter",
    "mofme.core.weights": "ModelCard",
    "mofme.errors": "ArchiveError Cancelled ConfigError ModelError MofmeError PictureError PictureTooLargeError "
    "ResultError TableError",
    "mofme.papers.carrot.carrot": "CarrotRouter",
    "mofme.language.tables.formats": "load_table",
    "mofme.language.tables.table": "RoutingTable",
    "mofme.papers.carrot.trained_router": "TrainedRouter",
    "mofme.papers.mixture_of_routers.model": "LoraMixture",
    "mofme.vision.metrics": "Lpips psnr ssim",
    "mofme.vision.picture.file": "read_picture write_picture",
    "mofme.vision.restorer": "Restoration Restorer RoutingMap available_models",
    "mofme.vision.video": "restore_video",
    "mofme.vision.weather": "synthesize",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

if TYPE_CHECKING:  # what mypy and editors read in place of the table above
    from mofme.core.experts import FeatureModulatedExperts, FeedForwardExperts
    from mofme.core.losses import importance_loss, switch_loss
    from mofme.core.moe import MoE, observe_routing, replace_routing
    from mofme.core.routers import LinearRouter
    from mofme.core.routing import Experts, Router, RoutingDecision
    from mofme.core.uncertainty import UncertaintyRouter
    from mofme.core.weights import ModelCard
    from mofme.errors import (
        ArchiveError,
        Cancelled,
        ConfigError,
        ModelError,
        MofmeError,
        PictureError,
        PictureTooLargeError,
        ResultError,
        TableError,
    )
    from mofme.language.tables.formats import load_table
    from mofme.language.tables.table import RoutingTable
    from mofme.papers.carrot.carrot import CarrotRouter
    from mofme.papers.carrot.trained_router import TrainedRouter
    from mofme.papers.mixture_of_routers.model import LoraMixture
    from mofme.vision.metrics import Lpips, psnr, ssim
    from mofme.vision.picture.file import read_picture, write_picture
    from mofme.vision.restorer import Restoration, Restorer, RoutingMap, available_models
    from mofme.vision.video import restore_video
    from mofme.vision.weather import synthesize
else:  # hidden from mypy, which would take any name for granted

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOME_OF[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
