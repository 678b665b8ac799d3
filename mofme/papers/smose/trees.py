"""Reading a policy: each expert as a table, and a decision tree that chooses the expert in the router's place.

Trees are distilled with DAgger (Ross et al. 2011): in every round the tree drives, the router says what it would have
chosen there, and the tree is fitted again on all that was seen. A state weighs as much as the other experts would act
differently there (as in VIPER, Bastani et al. 2018). Nothing of the router is left: where it scaled an expert by its
probability, the expert now has one weight, the mean of its probabilities where it was chosen.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from sklearn.tree import DecisionTreeClassifier, export_text, plot_tree

from mofme.papers.smose.environments import (
    COLOURS,
    TEST_SEED,
    Act,
    Evaluation,
    FloatArray,
    Spaces,
    Visited,
    drive,
    spaces,
    visit,
)
from mofme.papers.smose.policy import SparseLinearPolicy, acting

_ROUNDS = 6
_EPISODES = 4
_STEPS = 4000
_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class ExpertTable:
    """One expert in numbers that a person can compare.

    `effect_AD`: what one standard deviation of an observation changes at each action, before the squashing by tanh;
    `rest_A`: the action in the middle of its region; `typical_D`: its region's mean, in standard deviations away from
    the mean of all; `share`: of all steps, how many are its own.
    """

    effect_AD: FloatArray
    rest_A: FloatArray
    typical_D: FloatArray
    share: float

    def farthest(self, names: Spaces) -> list[tuple[str, float]]:
        """Three observations that tell its region most, and how many standard deviations away from the mean it lies."""
        return [(names.observations[d], float(self.typical_D[d])) for d in np.argsort(-np.abs(self.typical_D))[:3]]

    def strongest(self, names: Spaces, most: int = 5) -> list[tuple[str, str, float]]:
        """The largest effects: observation, action, effect."""
        order = np.argsort(-np.abs(self.effect_AD), axis=None)[:most]
        places = (np.unravel_index(place, self.effect_AD.shape) for place in order)
        return [(names.observations[d], names.actions[a], float(self.effect_AD[a, d])) for a, d in places]


def expert_tables(policy: SparseLinearPolicy, visited: Visited) -> Sequence[ExpertTable | None]:
    """One table an expert; None for one that was never chosen."""
    mean_D, std_D = visited.x_TD.mean(axis=0), visited.x_TD.std(axis=0).clip(min=1e-9)
    actions = policy.experts_EFD.shape[1] // 2
    weights_EAD = policy.experts_EFD.detach().double().numpy()[:, :actions]
    router_ED = policy.router_ED.detach().double().numpy()
    tables: list[ExpertTable | None] = []
    for expert, weights_AD in enumerate(weights_EAD):
        own_TD = visited.x_TD[visited.expert_T == expert]
        if not len(own_TD):
            tables.append(None)
            continue
        # The probability scales what the expert says; in its region's middle it is this much.
        middle_D = np.append(own_TD.mean(axis=0), 1.0)
        scaled_AD = softmax(router_ED @ middle_D)[expert] * weights_AD
        tables.append(
            ExpertTable(
                effect_AD=scaled_AD[:, :-1] * std_D,
                rest_A=np.tanh(scaled_AD @ middle_D),
                typical_D=(middle_D[:-1] - mean_D) / std_D,
                share=len(own_TD) / len(visited.x_TD),
            )
        )
    return tables


def describe(policy: SparseLinearPolicy, environment: str, episodes: int = 3, seed: int = 0) -> str:
    """The tables in words: for each expert its share, where it is called, and its strongest effects."""
    names = spaces(environment)
    lines = []
    for number, table in enumerate(expert_tables(policy, visit(acting(policy), environment, episodes, seed))):
        if table is None:
            lines.append(f"Expert {number}: never chosen")
            continue
        where = ", ".join(f"{seen} {deviations:+.1f}" for seen, deviations in table.farthest(names))
        what = "; ".join(f"{seen} -> {moved} {effect:+.2f}" for seen, moved, effect in table.strongest(names))
        lines.append(f"Expert {number}: {table.share:.0%} of the steps, where (in standard deviations) {where}")
        lines.append(f"  {what}")
    return "\n".join(lines)


@dataclass(frozen=True)
class DistilledTree:
    """A tree, the weight (E,) of every expert, how often it chooses as the router (on states that the tree itself
    reaches), and what it earns."""

    tree: DecisionTreeClassifier
    weight_E: FloatArray
    depth: int
    fidelity: float
    evaluation: Evaluation

    def text(self, environment: str) -> str:
        """The tree in words: which comparison of which observation leads to which expert, and the experts' weights."""
        # Of its own accord it leaves out what lies deeper than 10.
        names, deepest = list(spaces(environment).observations), max(1, self.tree.get_depth())
        words: str = export_text(self.tree, feature_names=names, max_depth=deepest)
        weights = ", ".join(f"expert {expert} {weight:.2f}" for expert, weight in enumerate(self.weight_E) if weight)
        return f"{words.replace('class:', 'expert')}Weights: {weights}\n"

    def picture(self, environment: str) -> str:
        """The tree as an SVG, as scikit-learn draws it."""
        return tree_svg(self.tree, spaces(environment).observations)


def tree_svg(tree: DecisionTreeClassifier, observations: Sequence[str]) -> str:
    """A tree over `observations` as scikit-learn draws it, leaves framed in the colour of their expert."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # scikit-learn measures its boxes on it
    from matplotlib.figure import Figure as Canvas  # takes half a second: not before it is needed

    canvas = Canvas(figsize=(1.2 + 1.2 * tree.get_n_leaves(), 1 + 0.8 * tree.get_depth()), layout="tight")
    FigureCanvasAgg(canvas)
    experts = [f"expert {expert}" for expert in tree.classes_]
    boxes = plot_tree(
        tree,
        feature_names=list(observations),
        class_names=experts,
        ax=canvas.subplots(),
        impurity=False,
        proportion=True,
        precision=2,
        fontsize=8,
    )
    for box in boxes:
        words = box.get_text()
        if " <= " in words:
            box.set_text(words.splitlines()[0])
        elif share := re.search("samples = (.*)", words):  # not "True" and "False" beside the lines
            named = re.search(r"class = expert (\d+)", words)
            expert = int(named[1] if named else tree.classes_[0])  # it names no class where there is but one
            box.set_text(f"expert {expert}, {share[1]}")
            box.get_bbox_patch().set(edgecolor=COLOURS[expert % len(COLOURS)], linewidth=3)
    written = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):  # words, not outlines of letters
        canvas.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = written.getvalue()
    return re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)  # it would style all of a page


def tree_acting(tree: DecisionTreeClassifier, weight_E: FloatArray, policy: SparseLinearPolicy) -> Act:
    """The policy's experts, each with its weight, with the tree in the router's place."""
    low_A, high_A = policy.low_A.double().numpy(), policy.high_A.double().numpy()

    def act(x_D: np.ndarray) -> tuple[np.ndarray, int]:
        # `tree.predict` checks its input for ten times as long as the tree takes.
        shares_C = tree.tree_.predict(np.asarray(x_D, np.float32)[None])[0]
        expert = int(tree.classes_[shares_C.argmax()])
        squashed_A = _squashed(policy, np.asarray(x_D, np.float64)[None], weight_E)[0, expert]
        return (low_A + high_A) / 2 + (high_A - low_A) / 2 * squashed_A, expert

    return act


def distil(
    policy: SparseLinearPolicy,
    environment: str,
    depth: int,
    seed: int = 0,
    episodes: int = 20,
    report: Callable[[int, int], None] = lambda *_: None,
) -> DistilledTree:
    """The best of several rounds by what it earns on episodes of its own; measured on `episodes` of the test's.

    `report` is told which round begins, of how many; what it raises stops the work.
    """
    x_TD = visit(acting(policy), environment, _EPISODES, seed, _STEPS).x_TD
    tries: list[tuple[float, DecisionTreeClassifier, FloatArray]] = []
    begin = seed
    for number in range(_ROUNDS):
        report(number + 1, _ROUNDS)
        weight_E = mean_weights(policy, x_TD)
        depends_T = what_depends_on_it(policy, x_TD, weight_E)
        tree = DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(x_TD, _chosen(policy, x_TD), depends_T)
        act = tree_acting(tree, weight_E, policy)
        # Longer than any exploration: no two rounds begin the same episode.
        begin += _STEPS
        driven = visit(act, environment, _EPISODES, begin, _STEPS)
        tries.append((float(np.mean(driven.returns)), tree, weight_E))
        x_TD = np.concatenate([x_TD, driven.x_TD])
    _, best, weight_E = max(tries, key=lambda one: one[0])
    act = tree_acting(best, weight_E, policy)
    reached = visit(act, environment, _EPISODES, TEST_SEED)
    fidelity = float((_chosen(policy, reached.x_TD) == reached.expert_T).mean())
    evaluation = drive(act, environment, policy.num_experts, episodes, TEST_SEED)
    return DistilledTree(best, weight_E, depth, fidelity, evaluation)


def mean_weights(policy: SparseLinearPolicy, x_TD: FloatArray) -> FloatArray:
    """The mean of each expert's probabilities (E,) at the observations (T, D) where the router chooses it, else 0."""
    with torch.no_grad():
        weights_TE = policy.route(torch.from_numpy(x_TD).float()).weights_TE.double().numpy()
    times_E = (weights_TE > 0).sum(axis=0)
    mean_E: FloatArray = weights_TE.sum(axis=0) / np.maximum(times_E, 1)
    return mean_E


def what_depends_on_it(policy: SparseLinearPolicy, x_TD: FloatArray, weight_E: FloatArray) -> FloatArray:
    """How far (T,) the other experts' actions lie, in mean squared distance, from the router's choice."""
    squashed_TEA = _squashed(policy, x_TD, weight_E)
    best_T1A = squashed_TEA[np.arange(len(x_TD)), _chosen(policy, x_TD), None]
    distance_T: FloatArray = np.square(squashed_TEA - best_T1A).sum(axis=(1, 2)) / max(1, policy.num_experts - 1)
    return distance_T + _LEAST_WEIGHT


def _squashed(policy: SparseLinearPolicy, x_TD: FloatArray, weight_E: FloatArray) -> FloatArray:
    """What every expert would do (T, E, A), in [-1, 1]."""
    weights_EFD = policy.experts_EFD.detach().double().numpy()
    offset_TD = np.concatenate([x_TD, np.ones((len(x_TD), 1))], axis=1)
    means_TEA = np.einsum("td,ead->tea", offset_TD, weights_EFD[:, : weights_EFD.shape[1] // 2])
    squashed_TEA: FloatArray = np.tanh(weight_E[:, None] * means_TEA)
    return squashed_TEA


def _chosen(policy: SparseLinearPolicy, x_TD: FloatArray) -> np.ndarray:
    with torch.no_grad():
        chosen_T: np.ndarray = policy.route(torch.from_numpy(x_TD).float()).logits_TE.argmax(dim=-1).numpy()
    return chosen_T
