"""The reference set on disk: numbers about pairs that the net solved, and the pairs themselves where they may be kept.

Axis names: N references, D embedding, R routing weights (all experts of all layers in a row).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mofme.core.rerouting import Neighbours, nearest
from mofme.core.weights import ModelCard, checksum, read_as, save_model
from mofme.errors import ModelError
from mofme.files import WEIGHTS
from mofme.vision.weather import WEATHERS

NET = "rerouting-references"
SHIPPED = WEIGHTS / "rerouting"
KINDS = (*WEATHERS, "clear")
Method = Literal["stored steps", "kernel regression", "mode finding", "gradient descent"]
METHODS: tuple[Method, ...] = get_args(Method)
_STORED = {  # the fields of a set by their names in its file
    "embedding": "embedding_ND",
    "routing": "routing_NR",
    "step": "step_NR",
    "kind": "kind_N",
    "gain": "gain_N",
    "weathered": "weathered_NCHW",
    "clean": "clean_NCHW",
}


@dataclass(frozen=True)
class Choices:
    """What is chosen on tuning pictures: the method, the neighbours k, the own share of regression and of mode finding,
    how much of a stored step is taken, and the first rate of descent."""

    method: Method = "stored steps"
    k: int = 5
    own: float = 0.5
    stride: float = 1.0
    rate: float = 1e-2


@dataclass(frozen=True)
class References:
    """N pairs: where they lie, how they were routed, and the step to where descent on their own loss led them.

    `kind_N` counts through KINDS; `gain_N` is in dB. `choices` is what was best on tuning pictures, `others` the best
    of the other methods. `weathered_NCHW` and `clean_NCHW` are uint8, or None in a set whose pictures may not be
    passed on.
    """

    model: str
    model_sha256: str
    embedding_ND: Tensor
    routing_NR: Tensor
    step_NR: Tensor
    kind_N: Tensor
    gain_N: Tensor
    choices: Choices = Choices()
    others: tuple[Choices, ...] = ()
    weathered_NCHW: Tensor | None = None
    clean_NCHW: Tensor | None = None

    def __len__(self) -> int:
        return len(self.kind_N)

    @property
    def digest(self) -> str:
        """Of the numbers that decide where they send a picture."""
        return checksum({"embedding": self.embedding_ND, "routing": self.routing_NR, "step": self.step_NR})

    def best(self, method: Method) -> Choices:
        """The best settings of a method; those of the paper if none were tuned."""
        tuned = [choices for choices in (self.choices, *self.others) if choices.method == method]
        return tuned[0] if tuned else Choices(method)

    def near(self, embedding_D: Tensor, k: int) -> Neighbours:
        """The k nearest, every number of an embedding in units of its spread over the references."""
        return nearest(self.placed(embedding_D), self.placed(self.embedding_ND), k)

    def placed(self, embedding: Tensor) -> Tensor:
        """Embeddings (..., D) where distances are measured."""
        return (embedding - self.embedding_ND.mean(dim=0)) / self.embedding_ND.std(dim=0).clamp_min(1e-6)

    def check(self, net: nn.Module) -> None:
        """Raises ModelError if they were made for other weights than those of `net`."""
        if checksum(net.state_dict()) != self.model_sha256:
            raise ModelError(
                f"the re-routing references were made for other weights than these, of a model called {self.model!r}: "
                "make them again, type: python -m mofme build-references PHOTOGRAPHS --model MODEL --out FOLDER, and "
                "give that folder with --references"
            )

    def save(self, folder: Path, licence: str, training: Mapping[str, Any]) -> ModelCard:
        """Write them in half precision, with a card."""
        state = {name: kept for name, field in _STORED.items() if (kept := getattr(self, field)) is not None}
        arguments = {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "choices": asdict(self.choices),
            "others": [asdict(choices) for choices in self.others],
        }
        card = ModelCard(folder.name, NET, arguments, licence, training)
        return save_model(folder, card, {**state, "kind": self.kind_N.to(torch.uint8)})

    @classmethod
    def load(cls, folder: Path = SHIPPED) -> "References":
        """Raises ModelError if the folder holds none, or they are damaged."""

        def made(card: ModelCard, state: dict[str, Tensor]) -> References:
            told = card.arguments
            choices, *others = (Choices(**one) for one in (told["choices"], *told["others"]))
            if choices.method not in METHODS:
                raise TypeError(f"no method is called {choices.method!r}")
            fields = {field: state[name] for name, field in _STORED.items() if name in state}
            fields["kind_N"] = fields["kind_N"].long()
            return cls(told["model"], told["model_sha256"], choices=choices, others=tuple(others), **fields)

        return read_as(folder, NET, made)
