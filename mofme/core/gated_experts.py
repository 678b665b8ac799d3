"""Experts cut out of one gated feed-forward network (SwiGLU), so that a token computes only a part of it.

FFN(x) = down( silu(gate x) o up x ) is a sum over its N neurons; grouped, it is a sum over experts (MoEfication, arXiv
2110.01786). With every expert at weight 1 the layer is that network.

Axis names beside those of `routing.py`: N neurons, H neurons of one expert, R neurons side by side, n tokens of one
expert.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Experts


class GatedFeedForwardExperts(Experts):
    """`shared` neurons that every token computes, then E experts of H neurons each, only where their weight is not 0.

        y = FFN_shared(x) + sum over the chosen of w_e FFN_e(x) + sum over the others of idle_e, (T, D) -> (T, D)

    The vector `idle` stands in for an expert that a token leaves out: what the expert puts out on average, say.
    """

    def __init__(self, dim: int, hidden: int, num_experts: int, shared: int = 0) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.hidden = hidden
        self.shared = shared
        neurons = shared + num_experts * hidden
        self.gate_ND = nn.Parameter(torch.randn(neurons, dim) / dim**0.5)
        self.up_ND = nn.Parameter(torch.randn(neurons, dim) / dim**0.5)
        self.down_ND = nn.Parameter(torch.randn(neurons, dim) / neurons**0.5)
        self.idle_ED = nn.Parameter(torch.zeros(num_experts, dim))

    @classmethod
    def from_dense(
        cls, gate_ND: Tensor, up_ND: Tensor, down_DN: Tensor, order_N: Tensor, num_experts: int, shared: int = 0
    ) -> "GatedFeedForwardExperts":
        """Cut a dense network, given by its three weights, in this order of its neurons: first those that are shared.

        Raises ValueError if the rest cannot be divided evenly.
        """
        neurons, dim = gate_ND.shape
        if (neurons - shared) % num_experts:
            raise ValueError(f"{neurons - shared} neurons cannot be divided evenly among {num_experts} experts")
        experts = cls(dim, (neurons - shared) // num_experts, num_experts, shared)
        with torch.no_grad():
            experts.gate_ND.copy_(gate_ND[order_N])
            experts.up_ND.copy_(up_ND[order_N])
            experts.down_ND.copy_(down_DN.T[order_N])
        return experts

    @property
    def expert_parameters(self) -> int:
        """Three weights of each neuron; a token that leaves an expert out takes its `idle` instead."""
        return 3 * self.hidden * self.gate_ND.shape[1]

    def forward(self, x_TD: Tensor, weights_TE: Tensor) -> Tensor:
        chosen_TE = weights_TE != 0
        y_TD = ((~chosen_TE).to(x_TD.dtype) @ self.idle_ED).to(x_TD.dtype)
        whole, counts = _use(weights_TE)
        for start, stop in self._runs(whole):
            y_TD += swiglu(x_TD, self.gate_ND[start:stop], self.up_ND[start:stop]) @ self.down_ND[start:stop]
        if any(count and not every for count, every in zip(counts, whole, strict=True)):
            # Split at once: the gradient of E single slices would be E tensors as large as all experts together.
            sizes = [self.shared, *[self.hidden] * self.num_experts]
            gates, ups, downs = (weight.split(sizes)[1:] for weight in (self.gate_ND, self.up_ND, self.down_ND))
            for expert, tokens_n in enumerate(chosen_TE.T.nonzero()[:, 1].split(counts)):
                if counts[expert] and not whole[expert]:
                    gates_n1 = weights_TE[:, expert].index_select(0, tokens_n).unsqueeze(-1)
                    h_nH = swiglu(x_TD.index_select(0, tokens_n), gates[expert], ups[expert]) * gates_n1
                    y_TD.index_add_(0, tokens_n, (h_nH @ downs[expert]).to(y_TD.dtype))
        return y_TD

    def _runs(self, whole: Sequence[bool]) -> Iterator[tuple[int, int]]:
        """Stretches of neurons that all tokens compute, the shared ones first: each is one product, however long.

        A token on its own, as when text is written, has nothing else.
        """
        start, stop = 0, self.shared
        for expert, every in enumerate(whole):
            if not every:
                if stop > start:
                    yield start, stop
                start = self.shared + (expert + 1) * self.hidden
            stop = self.shared + (expert + 1) * self.hidden
        if stop > start:
            yield start, stop


def _use(weights_TE: Tensor) -> tuple[list[bool], list[int]]:
    """Of each expert whether all tokens take it whole, at weight 1, and how many take part of it at all."""
    if len(weights_TE) == 1:  # one look instead of four: beside the work of a single token it counts
        weights = weights_TE[0].tolist()
        return [weight == 1 for weight in weights], [int(weight != 0) for weight in weights]
    return (weights_TE == 1).all(dim=0).tolist(), (weights_TE != 0).sum(dim=0).tolist()


def swiglu(x_TD: Tensor, gate_RD: Tensor, up_RD: Tensor) -> Tensor:
    """What R neurons make of a token (T, R), before their outputs are put together: silu(gate x) o up x."""
    return F.silu(F.linear(x_TD, gate_RD)) * F.linear(x_TD, up_RD)
