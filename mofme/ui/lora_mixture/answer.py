"""One text as a mixture of routers reads it: the answer, where sub-routers agree, and who got which word."""

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from mofme.ui.figures import weather_bars
from mofme.ui.heat_grid import Block, heat_grid, numbered

if TYPE_CHECKING:
    from mofme.language.lora_mixture.explanation import Explained, ExplainedLayer

_MARKS = {"[CLS]": "(start)", "[SEP]": "(end)"}
_SHOWN = 4  # answers


def layer_name(name: str) -> str:
    """As it stands at the beginning of a line."""
    return name[:1].upper() + name[1:]


def telling_layer(explained: "Explained") -> int:
    """The layer in which the sub-routers differ most."""
    return int(np.argmax([layer.divergence for layer in explained.layers]))


def summary_html(explained: "Explained", knows: str) -> str:
    """The answer, and in each layer how far the sub-routers agree and how much each counts.

    `knows` says which model answers.
    """
    order = np.argsort(-explained.probabilities_C, kind="stable")[:_SHOWN].tolist()
    bars = weather_bars({explained.labels[place]: float(explained.probabilities_C[place]) for place in order})
    routers = len(explained.layers[0].weights_STE)
    return (
        f"<p class='note'>{html.escape(knows)}</p>"
        f"<p class='choice'>It reads this as <b>{html.escape(explained.answer)}</b></p>{bars}"
        f"<h4>Do the sub-routers agree?</h4><p>{_agreement(explained, routers)}</p>{_layers_table(explained)}"
    )


def layer_html(explained: "Explained", place: int) -> str:
    """One layer: how much each expert was asked, and word by word the votes and what came of them."""
    layer = explained.layers[place]
    routers, experts = layer.weights_STE.shape[0], layer.weights_TE.shape[1]
    shares_E = layer.weights_TE.mean(0)
    blocks = [
        Block("main router", numbered(routers), layer.shares_TS),
        *(
            Block(f"sub-router {number + 1}", numbered(experts), votes_TE, most=_most(layer))
            for number, votes_TE in enumerate(layer.weights_STE)
        ),
        Block("what the experts get", numbered(experts), layer.weights_TE),
    ]
    words = [_MARKS.get(token, token) for token in explained.tokens]
    load = {f"Expert {expert + 1}": float(shares_E[expert]) for expert in range(experts)}
    return (
        f"<h4>Weight of each expert, all words together</h4><div style='max-width: 40rem'>{weather_bars(load)}</div>"
        f"<h4>Word by word, %</h4><p class='note'>Main router: how much the vote of each sub-router counts. "
        f"Sub-routers: how they divide their vote among the {experts} experts. Last: the experts that are really "
        f"asked, and with what weight.</p>{heat_grid('Word', words, blocks)}"
    )


def explained_values(explained: "Explained") -> dict[str, Any]:
    """The same for programs: probabilities and weights from 0 to 1, four digits."""

    def plain(values: np.ndarray[Any, Any]) -> Any:
        return values.round(4).tolist()

    return {
        "answer": explained.answer,
        "probabilities": dict(zip(explained.labels, plain(explained.probabilities_C), strict=True)),
        "agreement": round(explained.agreement, 4),
        "divergence": round(explained.divergence, 4),
        "tokens": list(explained.tokens),
        "layers": [
            {
                "name": layer.name,
                "agreement": round(layer.agreement, 4),
                "divergence": round(layer.divergence, 4),
                "sub_routers": plain(layer.weights_STE),
                "shares": plain(layer.shares_TS),
                "mixed": plain(layer.mixed_TE),
                "weights": plain(layer.weights_TE),
            }
            for layer in explained.layers
        ],
    }


def _agreement(explained: "Explained", routers: int) -> str:
    if routers == 1:
        return "There is only one: nobody to disagree with."
    all_of_them = "both" if routers == 2 else f"all {routers}"
    return (
        f"For <b>{100 * explained.agreement:.0f} %</b> of the words {all_of_them} would ask the same expert first. "
        f"Their votes differ by {100 * explained.divergence:.0f} % (0 % the same, 100 % nothing in common)."
    )


def _layers_table(explained: "Explained") -> str:
    routers = len(explained.layers[0].weights_STE)
    blocks = [
        Block("same first expert, %", [""], np.array([[layer.agreement] for layer in explained.layers]), zeros=True),
        Block(
            "votes differ, %", [""], np.array([[layer.divergence] for layer in explained.layers]), digits=1, zeros=True
        ),
        Block(
            "counts in the sum, % of sub-router",
            numbered(routers),
            np.array([layer.shares_TS.mean(0) for layer in explained.layers]),
        ),
    ]
    return heat_grid("Layer", [layer_name(layer.name) for layer in explained.layers], blocks)


def _most(layer: "ExplainedLayer") -> float:
    """Votes are spread over many experts: the largest of the layer has the strongest colour."""
    return float(layer.weights_STE.max())
