"""One text as three language models read it that differ in their router alone."""

import html
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mofme.ui.attention_router.choices import NAMES
from mofme.ui.heat_grid import Block, heat_grid, numbered

if TYPE_CHECKING:
    from mofme.language.attention_router.explanation import Explanation

_SURPRISING = 6.0  # nats with the strongest colour


def layers(explanation: "Explanation") -> int:
    return len(next(iter(explanation.routers.values())).weights_LTE)


def summary_html(explanation: "Explanation") -> str:
    """What the text cost each model, and how evenly it used its experts."""
    rows = "".join(
        f"<tr><td>{html.escape(NAMES[name])}</td><td>{_mean(one.nats_T):.3f}</td>"
        f"<td>{math.exp(_mean(one.nats_T)):,.0f}</td><td>{np.mean(one.entropy_L):.3f}</td></tr>"
        for name, one in explanation.routers.items()
    )
    best = min(explanation.routers, key=lambda name: _mean(explanation.routers[name].nats_T))
    return (
        f"<p class='choice'>Surprised least: the model with the router <b>{html.escape(NAMES[best])}</b></p>"
        "<div class='table numbers'><table><tr><th>Router</th><th>Loss, nats a token</th><th>As if choosing among</th>"
        f"<th>Evenness of load</th></tr>{rows}</table></div>"
        f"<p class='note'>On these {len(explanation.tokens)} tokens. One short text cannot tell routers apart: the "
        "measured results below do. Evenness: 1 when all experts are asked equally often, 0 when it is always one."
        "</p>"
    )


def layer_html(explanation: "Explanation", place: int) -> str:
    """One layer: who listens to whom, how often each expert is asked, and token by token the weights and the loss."""
    experts = next(iter(explanation.routers.values())).load_LE.shape[1]
    load_RE = np.array([one.load_LE[place].numpy() for one in explanation.routers.values()])
    load = heat_grid(
        "Router",
        [NAMES[name] for name in explanation.routers],
        [Block("expert", numbered(experts), load_RE, most=float(load_RE.max()))],
    )
    return (
        f"<div class='plots'><div><h4>How often each expert is asked, %</h4>{load}</div>"
        f"{_listening(explanation, place)}</div>"
        f"<h4>Token by token</h4><p class='note'>Loss: how surprising the token was, in nats. Then the weights of the "
        "experts that read it, in percent; an expert's number means nothing from one model to another.</p>"
        f"{_tokens_grid(explanation, place, experts)}"
    )


def explained_values(explanation: "Explanation") -> dict[str, Any]:
    """The same for programs: weights from 0 to 1, losses in nats of every token but the first."""
    return {
        "tokens": list(explanation.tokens),
        "routers": {
            name: {
                "weights": _plain(one.weights_LTE),
                "load": _plain(one.load_LE),
                "load_entropy": [round(value, 4) for value in one.entropy_L],
                "nats": _plain(one.nats_T),
                "attention": None if one.attention_LEE is None else _plain(one.attention_LEE),
            }
            for name, one in explanation.routers.items()
        },
    }


def visible(token: str) -> str:
    """A token with its blanks to be seen."""
    return token.replace("\n", "↵").replace(" ", "·") or "·"


def _listening(explanation: "Explanation", place: int) -> str:
    maps = [one.attention_LEE[place].numpy() for one in explanation.routers.values() if one.attention_LEE is not None]
    return "".join(_map_html(map_EE) for map_EE in maps)


def _map_html(map_EE: np.ndarray[Any, Any]) -> str:
    names = numbered(len(map_EE))
    grid = heat_grid("Expert", names, [Block("takes from", names, map_EE, most=float(map_EE.max()))])
    return (
        f"<div><h4>Whom each expert listens to, %</h4>{grid}<p class='note'>In the attention router: of what the score "
        "of each expert is made, all tokens together. An even grid would mean that nobody is preferred.</p></div>"
    )


def _tokens_grid(explanation: "Explanation", place: int, experts: int) -> str:
    routers = explanation.routers
    tokens = [visible(token) for token in explanation.tokens]
    # The first token follows nothing: it has no loss.
    nats_TR = np.stack([np.concatenate([[np.nan], one.nats_T.numpy()]) for one in routers.values()], axis=1)
    blocks = [
        Block("loss", [NAMES[name][:3] for name in routers], nats_TR, most=_SURPRISING, scale=1, digits=1),
        *(Block(NAMES[name], numbered(experts), one.weights_LTE[place].numpy()) for name, one in routers.items()),
    ]
    return heat_grid("Token", tokens, blocks)


def _mean(nats_T: Tensor) -> float:
    return float(nats_T.double().mean())


def _plain(values: Tensor) -> Any:
    return values.double().numpy().round(4).tolist()
