"""What the nets made of a photo, as HTML and as values."""

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mofme.ui.binary.photos import ComparedPhoto, ShippedRestorer


def photo_html(photo: "ComparedPhoto") -> str:
    """Name, size and time of each, and how far apart the pictures are."""
    rows = "".join(
        f"<tr><td>{html.escape(restorer.title)}: {html.escape(restorer.card.name)}</td>"
        f"<td>{restorer.kilobytes:,.0f}&nbsp;kB</td><td>{seconds:.2f}&nbsp;s</td></tr>"
        for restorer, seconds in zip(photo.restorers, photo.seconds, strict=True)
    )
    return (
        f"<p>The two pictures are {photo.apart:.1f} of 255 levels apart on average.</p>"
        f"<div class='table numbers'><table><tr><th>Restorer</th><th>File</th><th>Time</th></tr>{rows}</table></div>"
        f"<p class='note'>{_share(photo.restorers)} The file is smaller, the time is not: the bits are unpacked once, "
        "when the model is loaded, and then multiplied like any other weights.</p>"
    )


def photo_values(photo: "ComparedPhoto") -> dict[str, Any]:
    """The same for programs."""
    sides = {
        restorer.card.name: {
            "binary": restorer.binary,
            "kilobytes": round(restorer.kilobytes, 1),
            "seconds": round(seconds, 3),
        }
        for restorer, seconds in zip(photo.restorers, photo.seconds, strict=True)
    }
    return {"restorers": sides, "levels_apart": round(photo.apart, 3)}


def _share(restorers: "tuple[ShippedRestorer, ...]") -> str:
    layers = sum(len(restorer.card.arguments.get("binary", ())) for restorer in restorers)
    return f"{layers} of its layers have weights of one bit; those that bear it badly keep real ones."
