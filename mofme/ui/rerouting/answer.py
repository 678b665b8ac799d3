"""What re-routing one photo did: whom it listened to, how far the routing moved, and what it cost."""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from mofme.ui.heat_grid import Block, heat_grid, numbered
from mofme.vision.rerouting.gain import measured_gain

if TYPE_CHECKING:
    from mofme.ui.rerouting.rerouted_photo import ReroutedPhoto
    from mofme.vision.rerouting import Rerouted

_SHOWN = 6  # neighbours


def summary_html(photo: "ReroutedPhoto") -> str:
    """How far the routing moved, what that changed in the picture, and the time it took."""
    found = photo.rerouted
    return (
        f"<p class='choice'>The routing moved by <b>{100 * found.moved:.1f} %</b></p>"
        f"<p>{_change(photo)} By {html.escape(found.method)}, {found.extra_seconds:.1f} s more than the "
        f"{found.seconds - found.extra_seconds:.1f} s of restoring as usual.</p>"
        "<p class='note'>Whether a change is for the better cannot be told without the same photo in good weather; "
        f"{html.escape(measured_gain())}.</p>"
    )


def neighbours_html(found: "Rerouted") -> str:
    """The references that the routing was moved by: how much each weather counts, and the nearest of them."""
    largest = max(near.weight for near in found.neighbours)
    by_weather: dict[str, float] = {}
    for near in found.neighbours:
        by_weather[near.weather] = by_weather.get(near.weather, 0) + near.weight
    shares = ", ".join(
        f"{html.escape(weather)} {100 * share:.0f} %"
        for weather, share in sorted(by_weather.items(), key=lambda item: -item[1])
    )
    rows = "".join(
        f"<tr><td>{html.escape(near.weather)}</td><td><i><b style='width: {100 * near.weight / largest:.0f}%'></b></i>"
        f"</td><td>{100 * near.weight:.0f}&nbsp;%</td><td>{near.distance:.2f}</td><td>{near.gain:+.1f}&nbsp;dB</td>"
        "</tr>"
        for near in found.neighbours[:_SHOWN]
    )
    return (
        f"<h4>The photos it goes by</h4><p>{len(found.neighbours)} reference photos on which the net did well, like "
        f"this one in what the net sees: {shares}.</p><p class='note'>The nearest of them. Gained: what restoring did "
        "for that one.</p><div class='table numbers models'><table><tr><th>Weather</th><th colspan='2'>Counts</th>"
        f"<th>Distance</th><th>Gained</th></tr>{rows}</table></div>"
    )


def routing_html(found: "Rerouted") -> str:
    """The mean weight of every expert in every layer: before, after, and the change."""
    before_LE, after_LE = _rows(found.before), _rows(found.after)
    names, change_LE = numbered(before_LE.shape[1]), after_LE - before_LE
    most = max(float(np.abs(before_LE).max()), float(np.abs(after_LE).max()))
    blocks = [
        Block("before", names, before_LE, most, zeros=True),
        Block("after", names, after_LE, most, zeros=True),
        Block("change", names, change_LE, float(np.abs(change_LE).max()) or 1.0, digits=1, signed=True, zeros=True),
    ]
    layers = [f"{number + 1} {layer.split('.')[0].replace('_', ' ')}" for number, layer in enumerate(found.before)]
    return (
        "<h4>How much each expert is asked, layer by layer</h4><p class='note'>Mean weight of the "
        f"{before_LE.shape[1]} experts over the photo, times 100. The colours of the change have a scale of their own."
        f"</p>{heat_grid('Layer', layers, blocks)}"
    )


def rerouted_values(photo: "ReroutedPhoto") -> dict[str, Any]:
    """The same for programs."""
    found = photo.rerouted

    def plain(routing: Mapping[str, Tensor]) -> dict[str, Any]:
        return {layer: [round(value, 5) for value in weights_E.tolist()] for layer, weights_E in routing.items()}

    return {
        "method": found.method,
        "moved": round(found.moved, 5),
        "seconds": round(found.seconds, 3),
        "extra_seconds": round(found.extra_seconds, 3),
        "changed_levels": {"mean": round(photo.changed, 4), "most": round(photo.most_changed, 2)},
        "neighbours": [
            {"weather": near.weather, "distance": near.distance, "weight": near.weight, "gain": near.gain}
            for near in found.neighbours
        ],
        "before": plain(found.before),
        "target": plain(found.target),
        "after": plain(found.after),
    }


def _change(photo: "ReroutedPhoto") -> str:
    if photo.most_changed < 0.5:
        return "The picture stayed the same."
    return (
        f"The picture changed by {photo.changed:.2f} of 255 levels on average, by {photo.most_changed:.0f} where it "
        "changed most."
    )


def _rows(routing: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
    return np.stack([weights_E.double().cpu().numpy() for weights_E in routing.values()])
