"""Several estimators, weighted by what each of them adds on prompts that it did not learn from."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls
from torch import Tensor

from mofme.language.llm_routing.estimators.estimator import (
    Estimator,
    State,
    as_array,
    as_tensor,
    contrasts,
    folds,
)
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray


class Ensemble(Estimator):
    """Stacking (Breiman 1996): non-negative weights by least squares on predictions out of fold.

    How hard a prompt is (the mean over models) and how the models differ on it (their contrasts) have weights of their
    own: an estimator may know one and not the other, and only the contrasts decide the choice.
    """

    def __init__(self, parts: Mapping[str, Estimator], seed: int = 0) -> None:
        self.parts = parts
        self._seed = seed
        self.level_P = self.contrast_P = np.full(len(parts), 1 / len(parts))

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        for part in self.parts.values():
            part.fit(inputs, target_NM)
        unseen_PNM = np.zeros((len(self.parts), *target_NM.shape))
        for train, test in folds(len(inputs), self._seed):
            for index, trained in enumerate(self.parts.values()):
                part = trained.untrained()
                part.fit(inputs.rows(train), target_NM[train])
                unseen_PNM[index, test] = part.predict(inputs.rows(test))
        level_NP = np.stack([values_NM.mean(1) for values_NM in unseen_PNM], 1)
        contrast_NP = np.stack([contrasts(values_NM).ravel() for values_NM in unseen_PNM], 1)
        self.level_P = nnls(level_NP, target_NM.mean(1))[0]
        self.contrast_P = nnls(contrast_NP, contrasts(target_NM).ravel())[0]

    def predict(self, inputs: Inputs) -> FloatArray:
        values_PNM = np.stack([part.predict(inputs) for part in self.parts.values()])
        level_N1 = np.tensordot(self.level_P, values_PNM.mean(2), 1)[:, None]
        offsets_PNM = values_PNM - values_PNM.mean(2, keepdims=True)
        mixed_NM: FloatArray = level_N1 + np.tensordot(self.contrast_P, offsets_PNM, 1)
        return mixed_NM

    def untrained(self) -> "Ensemble":
        return Ensemble({name: part.untrained() for name, part in self.parts.items()}, self._seed)

    def state(self) -> dict[str, Tensor]:
        weights = {"level": as_tensor(self.level_P), "contrast": as_tensor(self.contrast_P)}
        parts = {f"{name}.{key}": value for name, part in self.parts.items() for key, value in part.state().items()}
        return {**weights, **parts}

    def load(self, state: State) -> None:
        self.level_P, self.contrast_P = as_array(state["level"]), as_array(state["contrast"])
        for name, part in self.parts.items():
            part.load(part_of(state, name))


def part_of(state: State, name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `name` and a dot, without it."""
    return {key[len(name) + 1 :]: value for key, value in state.items() if key.startswith(f"{name}.")}
