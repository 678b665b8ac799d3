"""Ridge regression, one head a model, with the penalty by cross-validation."""

import numpy as np
from torch import Tensor

from mofme.language.llm_routing.estimators.estimator import Estimator, State, as_array, as_tensor, error, folds
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray

PENALTIES = (0.1, 1.0, 4.0, 16.0, 64.0)


class Linear(Estimator):
    """Linear in embedding and traits, and in the prompt's length if `by_length` (for costs).

    The penalty is the one of PENALTIES with the least error in 5-fold cross-validation: of contrasts for qualities, of
    the values themselves for costs, which budgets are held against.
    """

    weights_FM: FloatArray
    bias_M: FloatArray

    def __init__(self, seed: int = 0, by_length: bool = False, penalties: tuple[float, ...] = PENALTIES) -> None:
        self._penalties = penalties
        self._by_length = by_length
        self._seed = seed

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        x_NF = self._features(inputs)
        if len(self._penalties) > 1:
            errors = np.zeros(len(self._penalties))
            for train, test in folds(len(inputs), self._seed):
                solutions = _solve(x_NF[train], target_NM[train], self._penalties)
                errors += [self._error(x_NF[test] @ weights + bias, target_NM[test]) for weights, bias in solutions]
            self._penalties = (self._penalties[int(errors.argmin())],)
        [(self.weights_FM, self.bias_M)] = _solve(x_NF, target_NM, self._penalties)

    def predict(self, inputs: Inputs) -> FloatArray:
        return self._features(inputs) @ self.weights_FM + self.bias_M

    def _error(self, estimate_NM: FloatArray, target_NM: FloatArray) -> float:
        return float(((estimate_NM - target_NM) ** 2).mean()) if self._by_length else error(estimate_NM, target_NM)

    def _features(self, inputs: Inputs) -> FloatArray:
        return inputs.with_length_NF if self._by_length else inputs.all_NF

    def untrained(self) -> "Linear":
        return Linear(self._seed, self._by_length, self._penalties)

    def state(self) -> dict[str, Tensor]:
        return {"weights": as_tensor(self.weights_FM), "bias": as_tensor(self.bias_M)}

    def load(self, state: State) -> None:
        self.weights_FM, self.bias_M = as_array(state["weights"]), as_array(state["bias"])


def _solve(
    x_NF: FloatArray, target_NM: FloatArray, penalties: tuple[float, ...]
) -> list[tuple[FloatArray, FloatArray]]:
    """Weights and bias of least squares with each penalty on the weights: one decomposition does for all."""
    mean_F, mean_M = x_NF.mean(0), target_NM.mean(0)
    centred_NF = x_NF - mean_F
    values_F, vectors_FF = np.linalg.eigh(centred_NF.T @ centred_NF)
    moment_FM = vectors_FF.T @ (centred_NF.T @ (target_NM - mean_M))
    solutions = []
    for penalty in penalties:
        weights_FM = vectors_FF @ (moment_FM / (values_F.clip(0) + penalty)[:, None])
        solutions.append((weights_FM, mean_M - mean_F @ weights_FM))
    return solutions
