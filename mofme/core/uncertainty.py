"""The uncertainty-aware router (UaR) of MoFME (arXiv 2312.16610), sampled as in the paper and in closed form.

The router is passed M times under dropout, which gives logits with mean mu and covariance Sigma; the weights are

    Sigma^-1 [r - mu] / || Sigma^-1 [r - mu] ||_2, then top-k.

An expert whose score stands out is trusted more the less that score depends on which inputs were dropped.

Our readings, where the paper is silent:
- r is the mean of the passes, and what is subtracted is its mean over the experts. Subtracting the mean of the same
  passes would leave nothing but sampling noise: zero in expectation for a linear router.
- Sigma is kept to its diagonal, plus a ridge: M samples cannot give an E x E matrix of full rank, and one solve per
  token would cost more than the experts.
- The same rule holds in training and in inference.

Axis names beside those of `routing.py`: M passes under dropout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.routing import Router, RoutingDecision, expert_scores, keep_top_k

RIDGE = 1e-2
TINY = 1e-20  # keeps weights and gradients finite for tokens of zeros, and for passes that happen to agree


class UncertaintyRouter(Router):
    """Linear scores, calibrated by their variance under input dropout.

    `samples=None` uses the closed form, without noise and at the price of a second small product. A number uses that
    many dropout passes, as the paper does, in training and in inference alike.

    A single expert has no other to stand out from: its weight is 0, and the mixture is the same for every token.

    The uncertainty of a token is noise / (noise + signal) in [0, 1]: the root mean variance of its scores over the
    experts against their spread between the experts.

    Raises ValueError for a dropout rate outside (0, 1), and for fewer than 2 samples.
    """

    def __init__(
        self, dim: int, num_experts: int, top_k: int = 4, *, dropout: float = 0.1, samples: int | None = None
    ) -> None:
        super().__init__()
        if not 0 < dropout < 1:
            raise ValueError(f"the dropout rate lies between 0 and 1, got {dropout}")
        if samples is not None and samples < 2:
            raise ValueError(f"a variance needs at least 2 samples, got {samples}")
        self.num_experts = num_experts
        self.top_k = top_k
        self.dropout = dropout
        self.samples = samples
        self.score = nn.Linear(dim, num_experts, bias=False)

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        # At least in single precision, also under autocast: on CPUs it is faster, and the top k are told apart.
        moments = self.moments(x_TD)
        mean_TE, variance_TE = (m_TE.to(torch.promote_types(m_TE.dtype, torch.float32)) for m_TE in moments)
        centred_TE = mean_TE - mean_TE.mean(dim=-1, keepdim=True)
        noise_T1 = variance_TE.mean(dim=-1, keepdim=True)
        # Variance in units of the token's own mean variance: the weights stay the same when all scores are scaled.
        calibrated_TE = centred_TE / (variance_TE / noise_T1.clamp_min(TINY) + RIDGE)
        length_T1 = (calibrated_TE.square().sum(dim=-1, keepdim=True) + TINY).sqrt()
        weights_TE = keep_top_k(calibrated_TE / length_T1, self.top_k)
        noise_T = (noise_T1.squeeze(-1) + TINY).sqrt()
        signal_T = (centred_TE.square().mean(dim=-1) + TINY).sqrt()
        return RoutingDecision(weights_TE, mean_TE, noise_T / (noise_T + signal_T))

    def moments(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (T, E) of the scores under input dropout.

        In closed form: dropout at rate p multiplies each feature, on its own, by 0 or 1 / (1 - p), which has mean 1 and
        variance p / (1 - p). So W dropout(x) has mean W x and variance p / (1 - p) W^2 x^2.
        """
        if self.samples is None:
            weight_ED = self.score.weight
            variance_ED = self.dropout / (1 - self.dropout) * weight_ED.square()
            return expert_scores(x_TD, weight_ED), expert_scores(x_TD.square(), variance_ED)
        passes_MTE = torch.stack([self.score(F.dropout(x_TD, self.dropout)) for _ in range(self.samples)])
        return passes_MTE.mean(dim=0), passes_MTE.var(dim=0)
