"""The control that matters most: a router that knows each task's means and nothing about the prompt beyond its task."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from mofme.language.llm_routing.prompt_router import Estimate, EstimatingRouter
from mofme.language.llm_routing.table import FloatArray, IntArray, RoutingTable
from mofme.language.sentence_encoder import Queries

# Weak enough a penalty to name nearly every task that can be named from embeddings of length 1.
_INVERSE_PENALTY = 30.0


class TaskTable(EstimatingRouter):
    """Mean quality and cost of each model on each task; the task of a new prompt is predicted from its embedding.

    Whatever a router gains over this one, it knows about prompts and not about tasks. A table without tasks is one
    task, and leaves the models' means.
    """

    name = "task table"
    classifier: LogisticRegression | None

    def fit(self, table: RoutingTable, queries: Queries) -> None:
        tasks, task_N = np.unique(np.array(table.tasks), return_inverse=True)
        self.means = Estimate(
            np.stack([table.quality_NM[task_N == task].mean(0) for task in range(len(tasks))]),
            np.stack([table.cost_NM[task_N == task].mean(0) for task in range(len(tasks))]),
        )
        self.classifier = None
        if len(tasks) > 1:
            self.classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=2000, tol=1e-3).fit(
                queries.embeddings_ND, task_N
            )

    def predict_task(self, queries: Queries) -> IntArray:
        """Row of the table (N,) that each prompt is held to belong to: its task's place in alphabetical order."""
        if self.classifier is None:
            return np.zeros(len(queries), dtype=np.int64)
        task_N: FloatArray | IntArray = self.classifier.predict(queries.embeddings_ND)
        return task_N.astype(np.int64)

    def estimate(self, queries: Queries) -> Estimate:
        task_N = self.predict_task(queries)
        return Estimate(self.means.quality_NM[task_N], self.means.cost_NM[task_N])
