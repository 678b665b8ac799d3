"""Counting how predicted classes meet true ones, and what is computed from the counts.

A confusion matrix is (C, C + 1) int64: row the true class, column the predicted one, the last column for predictions
that are none of the classes. Matrices of several frames add up; they may carry leading axes.
"""

import torch
from torch import Tensor

from mofme.vision.evaluation.label_sets import IGNORE


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Of one frame: `predicted` (H, W) in 0..classes, where `classes` means none; `labels` (H, W), with IGNORE."""
    judged = labels != IGNORE
    cells = labels[judged].long() * (classes + 1) + predicted[judged].long()
    return torch.bincount(cells, minlength=classes * (classes + 1)).view(classes, classes + 1)


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union (..., C) of each class; NaN for one that is neither there nor predicted."""
    matrix = matrix.double()
    hits = matrix[..., :-1].diagonal(dim1=-2, dim2=-1)
    return hits / (matrix.sum(dim=-1) + matrix[..., :-1].sum(dim=-2) - hits)


def mean_iou(matrix: Tensor, counted: Tensor | None = None) -> float:
    """Mean over the classes that occur in the labels (of `counted` (C,) bool, if given); NaN if none does."""
    return mean_ious(matrix[None], counted).item()


def mean_ious(matrices: Tensor, counted: Tensor | None = None) -> Tensor:
    """`mean_iou` of each of (N, C, C + 1) matrices, (N,)."""
    occurs = matrices.sum(dim=-1) > 0
    if counted is not None:
        occurs = occurs & counted
    return iou(matrices).where(occurs, torch.nan).nanmean(dim=-1)
