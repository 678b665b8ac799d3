"""A small multi-task network: one trunk for all models, a head each (CARROT, section 3)."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.language.llm_routing.estimators.estimator import Estimator, State, as_array
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray

_WIDTH = 64
_DROPOUT = 0.5
_EPOCHS = 60
_PATIENCE = 5
_BATCH = 256


class Network(Estimator):
    """For targets in [0, 1]. A tenth of the prompts is held out, and says when to stop."""

    parameters: dict[str, Tensor]

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        x_NF = torch.from_numpy(inputs.all_NF).float()
        y_NM = torch.from_numpy(target_NM).float()
        order = torch.from_numpy(np.random.default_rng(self._seed).permutation(len(x_NF)))
        held, train = order[: max(1, len(order) // 10)], order[max(1, len(order) // 10) :]
        mean_F, std_F = x_NF[train].mean(0), x_NF[train].std(0).clamp_min(1e-3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            trunk, heads = nn.Linear(x_NF.shape[1], _WIDTH), nn.Linear(_WIDTH, y_NM.shape[1])
            net = nn.Sequential(nn.Dropout(0.1), trunk, nn.GELU(), nn.Dropout(_DROPOUT), heads)
            _train(net, (x_NF - mean_F) / std_F, y_NM, train, held)
        scaled = trunk.weight.detach() / std_F
        self.parameters = {
            "trunk.weight": scaled,
            "trunk.bias": trunk.bias.detach() - scaled @ mean_F,
            "heads.weight": heads.weight.detach(),
            "heads.bias": heads.bias.detach(),
        }

    def predict(self, inputs: Inputs) -> FloatArray:
        p = self.parameters
        hidden = F.gelu(F.linear(torch.from_numpy(inputs.all_NF).float(), p["trunk.weight"], p["trunk.bias"]))
        return as_array(torch.sigmoid(F.linear(hidden, p["heads.weight"], p["heads.bias"])))

    def untrained(self) -> "Network":
        return Network(self._seed)

    def state(self) -> dict[str, Tensor]:
        return dict(self.parameters)

    def load(self, state: State) -> None:
        self.parameters = {name: tensor.float() for name, tensor in state.items()}


def _train(net: nn.Module, x_NF: Tensor, y_NM: Tensor, train: Tensor, held: Tensor) -> None:
    """Leaves `net` as it was when it did best on the prompts held out."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1)
    best, best_state, waited = float("inf"), net.state_dict(), 0
    for _ in range(_EPOCHS):
        net.train()
        for batch in train[torch.randperm(len(train))].split(_BATCH):
            loss = F.binary_cross_entropy_with_logits(net(x_NF[batch]), y_NM[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            loss_held = float(F.binary_cross_entropy_with_logits(net(x_NF[held]), y_NM[held]))
        waited += 1
        if loss_held < best:
            best, waited = loss_held, 0
            best_state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        if waited == _PATIENCE:
            break
    net.load_state_dict(best_state)
