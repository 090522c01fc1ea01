"""Compare predicted with true labels: counts, accuracy, macro F1."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class Confusion:
    """How often each true label was answered with each label, over the labels that occur."""

    labels: tuple[str, ...]  # true or predicted at least once, in the workload's order
    matrix: NDArray[np.int64]  # (labels, labels): row = truth, column = prediction

    @property
    def count(self) -> int:
        """Labelled frames."""
        return int(self.matrix.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None without a labelled frame."""
        return float(np.trace(self.matrix) / self.count) if self.count else None

    @property
    def macro_f1(self) -> float | None:
        """Mean over `labels` of F1 = 2 TP / (2 TP + FP + FN); None without a labelled frame.

        A label that was only ever predicted, or never recognised, counts with 0.
        """
        if not self.count:
            return None
        right = np.diag(self.matrix)  # (labels,)
        either = self.matrix.sum(0) + self.matrix.sum(1)  # 2 TP + FP + FN, never 0
        return float(np.mean(2 * right / either))


def count_confusion(pairs: Iterable[tuple[str, str]], order: Sequence[str]) -> Confusion:
    """Count (truth, prediction) pairs; every label must be in `order`."""
    rank = {label: index for index, label in enumerate(order)}
    matrix = np.zeros((len(order), len(order)), np.int64)
    for truth, predicted in pairs:
        matrix[rank[truth], rank[predicted]] += 1
    occurs = np.flatnonzero(matrix.sum(0) + matrix.sum(1))
    return Confusion(tuple(order[int(i)] for i in occurs), matrix[np.ix_(occurs, occurs)])
