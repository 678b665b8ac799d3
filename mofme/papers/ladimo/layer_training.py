"""How the neurons of a feed-forward network are divided among experts, and how the layer that this makes is trained.

Our reading. It learns on the hidden states that really reach it. A choice of experts has no gradient of its own, so the
router learns how the layer's output is shared among its experts: cross-entropy with the shares of squared norm. The
experts learn MSE(MoE(x), FFN(x)), as the paper says, with some of them left out, each token's relative to the stream it
is added to: all that follows normalizes the stream, and else the few tokens with huge states would be all that counts.
At the end, what experts put out and what stands in for idle ones is refitted by ridge regression: once gates and
choices are given, the output of a mixture is linear in both, so that its best weights are known exactly.

Axis names: P passages, L tokens of a passage, B passages at once, T tokens, S sampled tokens, D features, E experts,
N neurons, H neurons of one expert, C coordinates of a neuron, M = N + E.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mofme.core.gated_experts import swiglu
from mofme.core.routers import LinearRouter
from mofme.core.training import Run, linear
from mofme.files import atomic_file
from mofme.measure.statistics import FloatArray
from mofme.papers.ladimo.converted_layer import ConvertedLayer, FixedRouter, Policy, Recipe, Split, relative

IntArray = npt.NDArray[np.int64]
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


_PASSAGES_AT_ONCE = 4
_BATCH = 512  # tokens
# How much is left of what was learned before, relative to the neurons' mean square: few tokens say little of each.
_RIDGE = 0.3
_IDLE_RIDGE = 1e-3


class HiddenStates:
    """The hidden states of all tokens on disk, float32 (P, L, D): a few passages at a time take little memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._array = np.load(path, mmap_mode="r")
        self.passages, self.length, self.dim = self._array.shape

    @classmethod
    def write(cls, path: Path, shape: tuple[int, int, int], blocks: Iterator[Tensor]) -> "HiddenStates":
        """Fill a file block by block; it appears when it is complete."""
        with atomic_file(path) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for block_BLD in blocks:
                file.write(block_BLD.contiguous().numpy().data)
        return cls(path)

    def through(self, path: Path, step: Callable[[Tensor], Tensor]) -> "HiddenStates":
        """What `step` makes of all passages (B, L, D) -> (B, L, D), in a file of its own."""
        return self.write(path, self._array.shape, (step(block) for block in self.blocks()))

    def blocks(self, passages: int | None = None) -> Iterator[Tensor]:
        """All passages, or the first so many, a few at a time (B, L, D)."""
        stop = self.passages if passages is None else passages
        for start in range(0, stop, _PASSAGES_AT_ONCE):
            yield torch.from_numpy(np.array(self._array[start : min(start + _PASSAGES_AT_ONCE, stop)]))

    def tokens(self, index_T: Tensor) -> Tensor:
        """These tokens (T, D), counted through all passages."""
        flat_TD = self._array.reshape(-1, self.dim)
        return torch.from_numpy(flat_TD[index_T.numpy()])

    def __len__(self) -> int:
        """All tokens."""
        return int(self.passages * self.length)

    def delete(self) -> None:
        del self._array  # Windows removes no file that is mapped
        self.path.unlink(missing_ok=True)


def nearby_top_k(recipe: Recipe, generator: torch.Generator) -> Policy:
    """Top-k with a k near the recipe's: what is learned should serve whichever policy is chosen later."""
    span = recipe.experts // 4
    k = recipe.active + int(torch.randint(-span, span + 1, (), generator=generator))
    return Policy("top-k", max(1, min(k, recipe.experts - 1)))


class LayerTraining:
    """Trains a layer, just cut out of the dense one, on `residual`: the stream that its output is added to."""

    def __init__(self, moe: ConvertedLayer, norm: nn.Module, residual: HiddenStates, recipe: Recipe) -> None:
        self.moe, self.norm, self.residual, self.recipe = moe, norm, residual, recipe

    @torch.no_grad()
    def initialise(self, passages: int, path: Path) -> None:
        """Find what the layer is to learn, in one pass over the first `passages` while it still is the dense one.

        These are `outputs` of every token, written to `path`, their mean `size` (see `relative`), and every expert's
        share of them. It also sets where training begins: a linear router by least squares on the logarithms of the
        squared norms, and what stands in for an expert as the mean of its outputs where others are stronger.
        """
        moe, residual, policy = self.moe, self.residual, Policy("top-k", self.recipe.active)
        router, experts = moe.router.router, moe.experts
        products_DD = torch.zeros(residual.dim, residual.dim)
        answers_DE = torch.zeros(residual.dim, experts.num_experts)
        left_out_ED, counts_E = torch.zeros_like(experts.idle_ED), torch.zeros(experts.num_experts)
        shares: list[Tensor] = []
        sizes: list[Tensor] = []

        def dense_outputs() -> Iterator[Tensor]:
            for block_BLD in residual.blocks(passages):
                x_TD = self.norm(block_BLD).flatten(0, 1)
                shared_TD, parts_ETD = moe.each_expert(x_TD)
                y_TD = shared_TD + parts_ETD.sum(0)
                energy_TE = parts_ETD.square().sum(-1).T.clamp_min(1e-20)
                # A fixed router leaves out the same experts whatever the token.
                score_TE = router.logits(x_TD) if isinstance(router, FixedRouter) else energy_TE
                left_out_TE = (~policy.choose(score_TE)).to(x_TD.dtype)
                left_out_ED.add_(torch.bmm(left_out_TE.T.unsqueeze(1), parts_ETD).squeeze(1))
                counts_E.add_(left_out_TE.sum(0))
                log_TE = energy_TE.log()
                products_DD.add_(x_TD.T @ x_TD)
                answers_DE.add_(x_TD.T @ (log_TE - log_TE.mean(-1, keepdim=True)))
                shares.append(energy_TE / energy_TE.sum(-1, keepdim=True))
                sizes.append(relative(y_TD, block_BLD.flatten(0, 1) + y_TD) * len(y_TD))
                yield y_TD.unflatten(0, block_BLD.shape[:2])

        self.outputs = HiddenStates.write(path, (passages, residual.length, residual.dim), dense_outputs())
        self.size, self.shares_TE = float(sum(sizes)) / len(self.outputs), torch.cat(shares)
        experts.idle_ED.copy_(left_out_ED / counts_E.clamp_min(1).unsqueeze(-1))
        if isinstance(router, LinearRouter):
            ridge_DD = 1e-3 * products_DD.diagonal().mean() * torch.eye(residual.dim)
            router.score.weight.copy_(torch.linalg.solve(products_DD + ridge_DD, answers_DE).T)

    def train(self, generator: torch.Generator) -> None:
        """One pass over the tokens. Each batch uses another number of experts, as no policy is chosen yet."""
        moe = self.moe.requires_grad_(True)
        optimizer = torch.optim.Adam(moe.parameters(), lr=self.recipe.learning_rate)
        batches = torch.randperm(len(self.outputs), generator=generator).split(_BATCH)
        run = Run(moe, optimizer, steps=len(batches), schedule=linear)
        for step in run:
            index_T = batches[step]
            moe.router.policy = nearby_top_k(self.recipe, generator)
            with torch.no_grad():
                stream_TD, target_TD = self.residual.tokens(index_T), self.outputs.tokens(index_T)
                x_TD = self.norm(stream_TD)
            decision = moe.router(x_TD)
            y_TD = moe.experts(x_TD, decision.weights_TE)
            error = relative(y_TD - target_TD, stream_TD + target_TD) / self.size
            surprise = -(self.shares_TE[index_T] * decision.logits_TE.log_softmax(-1)).sum(-1).mean()
            run.learn(error + surprise)
        moe.router.policy = Policy("top-k", self.recipe.active)
        moe.requires_grad_(False)

    @torch.no_grad()
    def refit(self, generator: torch.Generator) -> None:
        """Ridge regression of the dense outputs on the active neurons, around the weights that the layer has; errors
        count relative to the stream, as in training."""
        moe, experts = self.moe, self.moe.experts
        neurons, dim = experts.down_ND.shape
        weight_MD = torch.cat([experts.down_ND, experts.idle_ED])
        products_MM = torch.zeros(len(weight_MD), len(weight_MD))
        answers_MD = torch.zeros(len(weight_MD), dim)
        blocks = zip(self.residual.blocks(self.outputs.passages), self.outputs.blocks(), strict=True)
        for stream_TD, target_TD in ((stream.flatten(0, 1), target.flatten(0, 1)) for stream, target in blocks):
            x_TD = self.norm(stream_TD)
            moe.router.policy = nearby_top_k(self.recipe, generator)
            size_T1 = (stream_TD + target_TD).norm(dim=-1, keepdim=True).clamp_min(1e-10)
            row_TM = active_neurons(moe, x_TD, moe.router(x_TD).weights_TE) / size_T1
            products_MM += row_TM.T @ row_TM
            answers_MD += row_TM.T @ (target_TD / size_T1 - row_TM @ weight_MD)
        square_M = products_MM.diagonal().clone()
        ridge_M = torch.full_like(square_M, _RIDGE * float(square_M[:neurons].mean()))
        ridge_M[neurons:] = _IDLE_RIDGE * float(square_M[neurons:].mean()) + 1e-12
        weight_MD += torch.linalg.solve(products_MM + ridge_M.diag(), answers_MD)
        experts.down_ND.copy_(weight_MD[:neurons])
        experts.idle_ED.copy_(weight_MD[neurons:])
        moe.router.policy = Policy("top-k", self.recipe.active)


def active_neurons(moe: ConvertedLayer, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
    """What the layer's output is linear in (T, N + E): neurons times their expert's weight, then 1 for idle experts."""
    experts = moe.experts
    h_TN = swiglu(x_TD, experts.gate_ND, experts.up_ND)
    weights_TN = weights_TE.repeat_interleave(experts.hidden, dim=1)
    shared_TN = torch.ones(len(x_TD), experts.shared)
    idle_TE = (weights_TE == 0).to(x_TD.dtype)
    return torch.cat([h_TN * torch.cat([shared_TN, weights_TN], dim=1), idle_TE], dim=1)
