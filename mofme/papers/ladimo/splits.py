"""How the neurons of one feed-forward network are divided among experts.

Axis names: S sampled tokens, N neurons, C coordinates of a neuron, E experts, H neurons of one expert.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Split = Literal["activation", "co-activation", "random", "importance"]
_COORDINATES = 32
_ROUNDS = 6
_BUSY = 0.1  # MoEfication and CMoE: the share of neurons that count as active for a token


def split_neurons(
    kind: Split, strength_SN: FloatArray, num_experts: int, shared: int, random: np.random.Generator
) -> IntArray:
    """The order of the neurons: `shared` ones, then the E experts one after the other, equally large.

    `strength_SN` is what each neuron adds to the output for sampled tokens, as a magnitude. Shared are those that add
    most, by their mean square: what static pruning would keep. (CMoE, arXiv 2502.04416, takes those most often among a
    token's strongest.) The others are divided

    - `activation`: balanced k-means on how strong they are from token to token (MoEfication, arXiv 2110.01786);
    - `co-activation`: balanced k-means on the leading eigenvectors of how often two are active together;
    - `random`: by chance, a control;
    - `importance`: strongest first, for pruning, a control.
    """
    strongest_N = np.argsort(-np.square(strength_SN).mean(0), kind="stable")
    if kind == "importance":
        return strongest_N
    shared_S, rest_N = strongest_N[:shared], np.sort(strongest_N[shared:])
    if kind == "random":
        rest_N = random.permutation(rest_N)
    else:
        strength = strength_SN[:, rest_N]
        points_NC = _profiles(strength) if kind == "activation" else _companions(_busiest(strength_SN)[:, rest_N])
        group_N = balanced_clusters(points_NC, num_experts, random)
        rest_N = rest_N[np.argsort(group_N, kind="stable")]
    return np.concatenate([shared_S, rest_N])


def _busiest(strength_SN: FloatArray) -> FloatArray:
    """1 for the strongest tenth of each token's neurons, else 0."""
    count = max(1, round(_BUSY * strength_SN.shape[1]))
    least_S1 = np.partition(strength_SN, -count, axis=1)[:, -count, None]
    return (strength_SN >= least_S1).astype(np.float64)


def _profiles(strength_SN: FloatArray) -> FloatArray:
    """Neurons as points, close together if they are strong for the same tokens."""
    relative_SN = strength_SN - strength_SN.mean(0)
    relative_SN = relative_SN / np.maximum(np.linalg.norm(relative_SN, axis=0), 1e-12)
    return _leading(relative_SN.T @ relative_SN)


def _companions(busy_SN: FloatArray) -> FloatArray:
    """Neurons as points, close together if they are often active for the same token."""
    together_NN = busy_SN.T @ busy_SN
    np.fill_diagonal(together_NN, 0)  # that a neuron is active with itself says nothing
    degree_N = np.sqrt(np.maximum(together_NN.sum(0), 1e-12))
    return _leading(together_NN / degree_N / degree_N[:, None])


def _leading(similarity_NN: FloatArray) -> FloatArray:
    """Coordinates whose inner products come as close to the similarities as so few can."""
    values_N, vectors_NN = np.linalg.eigh(similarity_NN)
    return vectors_NN[:, -_COORDINATES:] * np.sqrt(np.maximum(values_N[-_COORDINATES:], 0))


def balanced_clusters(points_NC: FloatArray, clusters: int, random: np.random.Generator) -> IntArray:
    """k-means with clusters of equal size: every assignment is the best one that keeps them so. Returns group_N."""
    if len(points_NC) % clusters:
        raise ValueError(f"{len(points_NC)} points cannot be divided evenly among {clusters} clusters")
    size = len(points_NC) // clusters
    centre_EC = _spread(points_NC, clusters, random)
    group_N = np.full(len(points_NC), -1)
    for _ in range(_ROUNDS):
        distance_NE = np.square(points_NC[:, None] - centre_EC).sum(-1)
        assigned_N = linear_sum_assignment(np.repeat(distance_NE, size, axis=1))[1] // size
        if (assigned_N == group_N).all():
            break
        group_N = assigned_N
        centre_EC = np.stack([points_NC[group_N == cluster].mean(0) for cluster in range(clusters)])
    return group_N.astype(np.int64)


def _spread(points_NC: FloatArray, clusters: int, random: np.random.Generator) -> FloatArray:
    """Points to begin from, drawn with chances by their squared distance to those already drawn (k-means++)."""
    chosen = [int(random.integers(len(points_NC)))]
    for _ in range(1, clusters):
        distance_N = np.square(points_NC[:, None] - points_NC[chosen]).sum(-1).min(1)
        distance_N = distance_N + 1e-12  # where all points are the same, any will do
        chosen.append(int(random.choice(len(points_NC), p=distance_N / distance_N.sum())))
    return points_NC[chosen]


def representatives(strength_SN: FloatArray, order_N: IntArray, num_experts: int, shared: int) -> IntArray:
    """Of every expert the neuron (E,) whose activity is closest to its group's average (CMoE)."""
    groups = order_N[shared:].reshape(num_experts, -1)
    profile_SN = strength_SN / np.maximum(np.linalg.norm(strength_SN, axis=0), 1e-12)
    return np.array([group[np.argmax(profile_SN[:, group].mean(1) @ profile_SN[:, group])] for group in groups])
