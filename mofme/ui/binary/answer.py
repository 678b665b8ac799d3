"""What the nets say of a drawn digit, as HTML and as values; pictures stand inside the page."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from mofme.ui.binary.reading import Answer, Reader
from mofme.vision.digits.data import SIDE

_COLUMNS = 8
_GAP = 2


def answers_html(answers: Sequence[Answer], pixels_D: Tensor) -> str:
    """The digit as the nets see it, and each net's scores side by side."""
    seen = _image((pixels_D.view(SIDE, SIDE).numpy() * 255).round(), "The digit as the nets see it", 84)
    agree = len({answer.digit for answer in answers}) == 1
    words = "All say the same." if agree and len(answers) > 1 else "" if agree else "They disagree."
    return (
        f"<p>The nets see this: {seen} {words}</p>"
        f"<div class='plots'>{''.join(map(_answer, answers))}</div>"
        "<p class='note'>Scores, not probabilities: each net was trained towards +1 for the right digit and -1 for the "
        "others.</p>"
    )


def weights_html(answers: Sequence[Answer]) -> str:
    """The first-layer weights of the units that the drawing excites most."""
    return f"<div class='plots'>{''.join(_weights(answer.reader, answer.units) for answer in answers)}</div>"


def answer_values(answers: Sequence[Answer]) -> dict[str, Any]:
    """The same for programs."""
    return {
        answer.reader.card.name: {
            "digit": answer.digit,
            "scores": [round(score, 4) for score in answer.scores_C.tolist()],
            "kilobytes": round(answer.reader.kilobytes, 1),
        }
        for answer in answers
    }


def _answer(answer: Answer) -> str:
    bars = "".join(
        f"<div class='bar'><span>{digit}</span>"
        f"<i><b style='width: {100 * min(1.0, max(0.0, (score + 1) / 2)):.0f}%'></b></i><span>{score:+.2f}</span></div>"
        for digit, score in enumerate(answer.scores_C.tolist())
    )
    return (
        f"<div><h4>{html.escape(answer.reader.title)}</h4><p class='choice'>{answer.digit}</p>"
        f"<p class='note'>{_about(answer.reader)}</p><div class='bars'>{bars}</div></div>"
    )


def _about(reader: Reader) -> str:
    words = f"3 layers of {reader.card.arguments['width']}, {reader.kilobytes:,.0f} kB"
    error = reader.card.metrics.get("test error, %")
    return words if error is None else f"{words}, {error:.2f} % of MNIST's test digits wrong"


def _weights(reader: Reader, units: Sequence[int]) -> str:
    weights_UD = reader.first_weights_FD[list(units)]
    # Binary weights become black and white; real ones grey, each unit on its own scale.
    scale_U1 = weights_UD.abs().amax(1, keepdim=True).clamp_min(1e-12)
    tiles = ((weights_UD / scale_U1 + 1) * 127.5).round().view(-1, SIDE, SIDE).numpy()
    rows = -(-len(tiles) // _COLUMNS)
    sheet = np.full((rows * (SIDE + _GAP) - _GAP, _COLUMNS * (SIDE + _GAP) - _GAP, 4), 0, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = (index * (SIDE + _GAP) for index in divmod(place, _COLUMNS))
        sheet[top : top + SIDE, left : left + SIDE] = np.dstack([tile, tile, tile, np.full_like(tile, 255)])
    words = f"{reader.title}: what {len(units)} units of the first layer look for"
    return f"<div><h4>{html.escape(reader.title)}</h4>{_image(sheet, words)}</div>"


def _image(pixels: "np.ndarray[Any, Any]", words: str, width: int | None = None) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    size = f"width: {width}px" if width else "width: 100%; max-width: 460px"
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f"<img src='data:image/png;base64,{data}' alt='{html.escape(words)}' "
        f"style='{size}; image-rendering: pixelated; display: inline-block; vertical-align: middle'>"
    )
