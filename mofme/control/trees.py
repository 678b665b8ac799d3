"""Decision trees that choose the expert in the router's place, distilled with DAgger (Ross et al. 2011).

A tree fitted on the policy's own states errs where its errors lead it, so in every round the tree drives, the router
says what it would have chosen there, and the tree is fitted again on all that was seen. A state weighs as much as the
other experts would act differently there (as in VIPER, Bastani et al. 2018): the tree may err where nothing depends on
it. The tree chooses, and nothing of the router is left: where the router scaled an expert by its probability, the
expert now has one weight, the mean of its probabilities where it was chosen. With the router's own probability an
expert that the tree takes for another would hardly act at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.tree import DecisionTreeClassifier, export_text

from mofme.control.environments import spaces
from mofme.control.evaluation import TEST_SEED, Act, Evaluation, acting, drive
from mofme.control.explanation import FloatArray, visit
from mofme.control.policy import SparseLinearPolicy
from mofme.control.tree_picture import tree_svg

_ROUNDS = 6
_EPISODES = 4
_STEPS = 4000
_LEAST_WEIGHT = 1e-6


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
        words: str = export_text(self.tree, feature_names=list(spaces(environment).observations))
        weights = ", ".join(f"expert {expert} {weight:.2f}" for expert, weight in enumerate(self.weight_E) if weight)
        return f"{words.replace('class:', 'expert')}Weights: {weights}\n"

    def picture(self, environment: str) -> str:
        """The tree as an SVG."""
        return tree_svg(self.tree, spaces(environment).observations)


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
    report: Callable[[int, int], None] | None = None,
) -> DistilledTree:
    """The best of several rounds by what it earns on episodes of its own; measured on `episodes` of the test's.

    `report` is told which round begins, of how many; what it raises stops the work.
    """
    x_TD = visit(acting(policy), environment, _EPISODES, seed, _STEPS).x_TD
    tries: list[tuple[float, DecisionTreeClassifier, FloatArray]] = []
    begin = seed
    for number in range(_ROUNDS):
        if report is not None:
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


def distil_depths(
    policy: SparseLinearPolicy,
    environment: str,
    episodes: int = 20,
    depths: Sequence[int] = (1, 2, 3, 4, 5, 6),
    seed: int = 0,
) -> list[DistilledTree]:
    """One tree for each depth."""
    return [distil(policy, environment, depth, seed, episodes) for depth in depths]


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
