"""Makes `import torchvision` work beside a CPU build of torch.

torchvision's wheel is compiled against CUDA torch. Beside a CPU torch its operators cannot be loaded, and
`import torchvision` raises "operator torchvision::nms does not exist", which takes lpips, transformers and
others down with it. Declaring the two missing operators is enough for models, transforms and all that
builds on them; `torchvision.io`, `ops.nms` and `deform_conv2d` stay unavailable.

Importing this module is enough. It imports neither torch nor torchvision: a finder waits for the first
`import torchvision`, so `--help` stays quick and a healthy installation is left as it is.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[object] = []  # torch forgets a library's operators as soon as the object is collected


class _Loader(SourceFileLoader):
    """Executes torchvision; when its operators are missing, declares them and executes it again."""

    def exec_module(self, module: ModuleType) -> None:
        try:
            super().exec_module(module)
        except RuntimeError as error:
            if "operator torchvision::nms does not exist" not in str(error):
                raise
            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            _declare_operators()
            super().exec_module(module)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)


sys.meta_path.insert(0, _Finder())
