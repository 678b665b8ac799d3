"""A distilled tree as a picture (SVG): comparisons from left to right, each leaf in the colour of its expert."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sklearn.tree import DecisionTreeClassifier

from mofme.control.drawing import COLOURS

_LINE = 26  # pixels from leaf to leaf
_LETTER = 6.6  # mean width of a letter
_GAP = 30  # between a comparison and its answers
_LEAF = 150


@dataclass(frozen=True)
class Leaf:
    """An expert, and how many of the states that the tree was fitted on (0 to 1) it answers."""

    expert: int
    share: float


@dataclass(frozen=True)
class Comparison:
    """`yes` where the observation is at most `threshold`, else `no`."""

    observation: int
    threshold: float
    yes: "Comparison | Leaf"
    no: "Comparison | Leaf"


def comparisons(tree: DecisionTreeClassifier) -> Comparison | Leaf:
    """What the tree asks. A comparison is left out where both of its answers lead to the same expert."""
    nodes = tree.tree_

    def below(node: int) -> Comparison | Leaf:
        if nodes.children_left[node] < 0:
            expert = int(tree.classes_[nodes.value[node, 0].argmax()])
            return Leaf(expert, float(nodes.n_node_samples[node] / nodes.n_node_samples[0]))
        yes, no = below(nodes.children_left[node]), below(nodes.children_right[node])
        if isinstance(yes, Leaf) and isinstance(no, Leaf) and yes.expert == no.expert:
            return Leaf(yes.expert, yes.share + no.share)
        return Comparison(int(nodes.feature[node]), float(nodes.threshold[node]), yes, no)

    return below(0)


def tree_svg(tree: DecisionTreeClassifier, observations: Sequence[str]) -> str:
    """The picture; `observations` are the names of what the tree compares."""
    root = comparisons(tree)
    columns = _columns(root, observations)
    rows = iter(range(1_000_000))
    parts: list[str] = []

    def place(node: Comparison | Leaf, level: int) -> float:
        x = columns[level]
        if isinstance(node, Leaf):
            y = _LINE * (next(rows) + 0.5)
            colour = COLOURS[node.expert % len(COLOURS)]
            parts.append(f"<rect x='{x}' y='{y - 7:.1f}' width='14' height='14' rx='3' fill='{colour}'/>")
            parts.append(_text(x + 20, y, f"expert {node.expert}, {node.share:.0%}"))
            return y
        heights = [place(node.yes, level + 1), place(node.no, level + 1)]
        y = sum(heights) / 2
        words = _words(node, observations)
        parts.append(_text(x, y, words))
        begin, end = x + _LETTER * len(words) + 4, columns[level + 1] - 4
        bend = columns[level + 1] - _GAP + 8
        for height, dashes in zip(heights, ("", " stroke-dasharray='3 3'"), strict=True):
            line = f"M{begin:.1f} {y:.1f}H{bend}V{height:.1f}H{end}"
            parts.append(f"<path d='{line}' fill='none' stroke='#94a3b8'{dashes}/>")
        return y

    place(root, 0)
    width, height = max(columns.values()) + _LEAF, _LINE * next(rows)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' "
        f"role='img' aria-label='The decision tree' color='#334155' fill='currentColor' font-size='12' "
        f"font-family='system-ui, sans-serif'>{''.join(parts)}</svg>"
    )


def _columns(root: Comparison | Leaf, observations: Sequence[str]) -> dict[int, int]:
    """Where each level begins: to the right of the longest words of the one before."""
    widest: dict[int, int] = {}
    for level, node in _levels(root, 0):
        words = _words(node, observations) if isinstance(node, Comparison) else ""
        widest[level] = max(widest.get(level, 0), len(words))
    columns = {0: 8}
    for level in range(len(widest) - 1):
        columns[level + 1] = columns[level] + round(_LETTER * widest[level]) + _GAP
    return columns


def _levels(node: Comparison | Leaf, level: int) -> Iterator[tuple[int, Comparison | Leaf]]:
    yield level, node
    if isinstance(node, Comparison):
        yield from _levels(node.yes, level + 1)
        yield from _levels(node.no, level + 1)


def _words(node: Comparison, observations: Sequence[str]) -> str:
    return f"{observations[node.observation]} \N{LESS-THAN OR EQUAL TO} {round(node.threshold, 2) + 0.0:.2f}"


def _text(x: float, y: float, words: str) -> str:
    return f"<text x='{x:.1f}' y='{y + 4:.1f}'>{html.escape(words)}</text>"
