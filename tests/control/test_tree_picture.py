from xml.etree import ElementTree

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from mofme.control.tree_picture import Comparison, Leaf, comparisons, tree_svg

SVG = "{http://www.w3.org/2000/svg}"


def fitted(chosen: list[int], depth: int = 6) -> DecisionTreeClassifier:
    """A tree on states that stand at 0, 1, 2, ... of one observation."""
    return DecisionTreeClassifier(max_depth=depth, random_state=0).fit(np.arange(len(chosen))[:, None], chosen)


def test_the_tree_reads_as_it_was_fitted() -> None:
    # Experts 5, 5, 2, 2 at 0..3: one comparison half way between 1 and 2.
    assert comparisons(fitted([5, 5, 2, 2])) == Comparison(0, 1.5, Leaf(5, 0.5), Leaf(2, 0.5))


def test_comparisons_that_decide_nothing_are_left_out() -> None:
    # One state in five asks for another expert, too few for the majority of any leaf of a tree of depth 1.
    tree = DecisionTreeClassifier(max_depth=1, random_state=0).fit([[0], [0], [1], [1], [1]], [3, 3, 3, 3, 1])
    assert tree.tree_.node_count == 3
    assert comparisons(tree) == Leaf(3, 1.0)


def test_every_leaf_and_comparison_is_in_the_picture_and_inside_it() -> None:
    picture = ElementTree.fromstring(tree_svg(fitted([0, 1, 2, 3, 3, 4]), ["height <of> the torso"]))
    words = [element.text or "" for element in picture.iter(f"{SVG}text")]
    assert sorted(word for word in words if word.startswith("expert")) == [
        *(f"expert {expert}, 17%" for expert in (0, 1, 2)),
        "expert 3, 33%",
        "expert 4, 17%",
    ]
    assert sum(word.startswith("height <of> the torso ≤ ") for word in words) == 4
    leaves = picture.findall(f"{SVG}rect")
    heights = [float(leaf.get("y", "-1")) for leaf in leaves]
    assert heights == sorted(set(heights))
    assert heights[0] >= 0 and heights[-1] + 14 <= float(picture.get("height", "0"))
    assert max(float(leaf.get("x", "0")) for leaf in leaves) < float(picture.get("width", "0"))


def test_a_threshold_just_below_zero_is_zero() -> None:
    tree = DecisionTreeClassifier(random_state=0).fit([[-0.003], [0.001]], [0, 1])
    assert "height ≤ 0.00" in tree_svg(tree, ["height"])


@pytest.mark.parametrize("chosen", [[7], [7, 7, 7]])
def test_a_tree_that_asks_nothing_is_one_leaf(chosen: list[int]) -> None:
    picture = ElementTree.fromstring(tree_svg(fitted(chosen), ["height"]))
    assert [element.text for element in picture.iter(f"{SVG}text")] == ["expert 7, 100%"]
