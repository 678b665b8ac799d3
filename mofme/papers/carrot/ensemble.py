"""What CARROT expects of each model by default: a small multi-task network and simpler estimators, weighted.

Axis names: N prompts, M models, F features of a prompt, P parts of an ensemble.
"""

from collections.abc import Mapping
from copy import copy
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.nn import functional as F

from mofme.core.training import part_of
from mofme.language.tables.table import FloatArray
from mofme.papers.carrot.estimators import Estimator, Inputs, State, as_array, contrasts, folds

_WIDTH = 64
_DROPOUT = 0.5
_EPOCHS = 60
_PATIENCE = 5
_BATCH = 256


class Network(Estimator):
    """One trunk for all models, a head each (CARROT, section 3), for targets in [0, 1].

    A tenth of the prompts is held out, and says when to stop.
    """

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


class Ensemble(Estimator):
    """Several estimators, weighted by what each of them adds on prompts that it did not learn from.

    Stacking (Breiman 1996): non-negative weights by least squares on predictions out of fold.

    How hard a prompt is (the mean over models) and how the models differ on it (their contrasts) have weights of their
    own: an estimator may know one and not the other, and only the contrasts decide the choice.
    """

    learnt: ClassVar[Mapping[str, str]] = {"level": "level_P", "contrast": "contrast_P"}

    def __init__(self, parts: Mapping[str, Estimator], seed: int = 0) -> None:
        self.parts, self._seed = parts, seed
        self.level_P = self.contrast_P = np.full(len(parts), 1 / len(parts))

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        for part in self.parts.values():
            part.fit(inputs, target_NM)
        unseen_PNM = np.zeros((len(self.parts), *target_NM.shape))
        for train, test in folds(len(inputs), self._seed):
            for index, trained in enumerate(self.parts.values()):
                part = copy(trained)
                part.refit(inputs.rows(train), target_NM[train])
                unseen_PNM[index, test] = part.predict(inputs.rows(test))
        level_NP = np.stack([values_NM.mean(1) for values_NM in unseen_PNM], 1)
        contrast_NP = np.stack([contrasts(values_NM).ravel() for values_NM in unseen_PNM], 1)
        self.level_P = nnls(level_NP, target_NM.mean(1))[0]
        self.contrast_P = nnls(contrast_NP, contrasts(target_NM).ravel())[0]

    def predict(self, inputs: Inputs) -> FloatArray:
        values_PNM = np.stack([part.predict(inputs) for part in self.parts.values()])
        level_N1 = np.tensordot(self.level_P, values_PNM.mean(2), 1)[:, None]
        offsets_PNM = values_PNM - values_PNM.mean(2, keepdims=True)
        return np.asarray(level_N1 + np.tensordot(self.contrast_P, offsets_PNM, 1))

    def state(self) -> dict[str, Tensor]:
        parts = {f"{name}.{key}": value for name, part in self.parts.items() for key, value in part.state().items()}
        return {**super().state(), **parts}

    def load(self, state: State) -> None:
        super().load(state)
        for name, part in self.parts.items():
            part.load(part_of(state, name))
