"""Means of each task, weighted by how probable the prompt's embedding makes the task."""

from collections import Counter

import numpy as np
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mofme.language.llm_routing.estimators.estimator import Estimator, State, as_array, as_tensor
from mofme.language.llm_routing.estimators.inputs import Inputs
from mofme.language.llm_routing.table import FloatArray

_FEWEST = 20  # prompts of a task; smaller ones are thrown together
_INVERSE_PENALTY = 30.0


class TaskMeans(Estimator):
    """Most of what embeddings tell of a prompt is its task. Without tasks, these are the means over all prompts."""

    weights_FT: FloatArray
    bias_T: FloatArray
    means_TM: FloatArray

    def fit(self, inputs: Inputs, target_NM: FloatArray) -> None:
        counts = Counter(inputs.tasks)
        names = [task if counts[task] >= _FEWEST else "" for task in inputs.tasks] or [""] * len(inputs)
        tasks, task_N = np.unique(np.array(names), return_inverse=True)
        self.means_TM = np.stack([target_NM[task_N == task].mean(0) for task in range(len(tasks))])
        self.weights_FT = np.zeros((inputs.all_NF.shape[1], len(tasks)))
        self.bias_T = np.zeros(len(tasks))
        if len(tasks) > 1:
            classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000, tol=1e-3).fit(inputs.all_NF, task_N)
            # Of two classes scikit-learn keeps the second one's weights only.
            self.weights_FT[:, -len(classifier.coef_) :] = classifier.coef_.T
            self.bias_T[-len(classifier.coef_) :] = classifier.intercept_

    def predict(self, inputs: Inputs) -> FloatArray:
        logits_NT = inputs.all_NF @ self.weights_FT + self.bias_T
        odds_NT = np.exp(logits_NT - logits_NT.max(1, keepdims=True))
        return odds_NT / odds_NT.sum(1, keepdims=True) @ self.means_TM

    def untrained(self) -> "TaskMeans":
        return TaskMeans()

    def state(self) -> dict[str, Tensor]:
        return {
            "weights": as_tensor(self.weights_FT),
            "bias": as_tensor(self.bias_T),
            "means": as_tensor(self.means_TM),
        }

    def load(self, state: State) -> None:
        self.weights_FT, self.bias_T = as_array(state["weights"]), as_array(state["bias"])
        self.means_TM = as_array(state["means"])
