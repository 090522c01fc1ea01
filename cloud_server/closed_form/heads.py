"""Ridge regression, linear discriminant analysis and class means: heads from sums alone.

A head gives the logits features @ kernel + bias. A class that no robot has shown gets the mean of
the others, less a margin: it is never the answer, and gradient rounds can still teach it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cloud_server.closed_form.moments import Moments
from fleet_model.types import Tensor

UNSEEN_MARGIN = 4.0  # below the mean of the others, in units of a trained head's logits


@dataclass(frozen=True, eq=False, slots=True)
class Head:
    """Logits are features @ kernel + bias."""

    kernel: Tensor  # (axes, classes) float64
    bias: Tensor  # (classes,) float64


def ridge(moments: Moments, strength: float, width: int) -> Head:
    """Regress the classes, one-hot, on the features: the bias is exact and not shrunk.

        W = (A - N m m' + strength * tr / width * I)^-1 (b - m n'),  c = n / N - W'm

    with A the second moment, b the class sums, n the counts, N and m count and mean of all frames,
    and tr the trace of the centred A (Fed3R, arXiv:2402.11178, with a free bias).
    """
    frames = moments.counts.sum()
    mean = moments.sums.sum(axis=0) / frames  # (axes,)
    centered = moments.second - frames * np.outer(mean, mean)
    targets = moments.sums.T - np.outer(mean, moments.counts)  # (axes, classes)
    kernel = np.linalg.solve(_loaded(centered, strength, width), targets)
    return Head(kernel, moments.counts / frames - mean @ kernel)


def lda(moments: Moments, strength: float, width: int) -> Head:
    """Discriminate classes that have one covariance and are equally likely.

        S = (within + strength * tr / width * I) / N,  W = S^-1 mu,  c_k = -1/2 mu_k' S^-1 mu_k

    Means are taken from the mean of the classes, which changes no difference between logits.
    """
    seen = moments.counts > 0
    means = np.where(seen[:, None], moments.means - moments.means[seen].mean(axis=0), 0.0)
    scatter = _loaded(moments.within, strength, width) / moments.counts.sum()
    kernel = np.linalg.solve(scatter, means.T)  # (axes, classes)
    middle = moments.means[seen].mean(axis=0)
    return Head(kernel, -0.5 * (means.T * kernel).sum(axis=0) - middle @ kernel)


def class_means(moments: Moments, strength: float, width: int) -> Head:
    """Choose the class whose mean is nearest (FedNCM, arXiv:2402.01862): no scatter is needed.

        W = mu / s,  c_k = -1/2 |mu_k|^2 / s

    with s the mean square of a number within classes, so that logits have the size of LDA's.
    """
    del strength
    seen = moments.counts > 0
    middle = moments.means[seen].mean(axis=0)
    means = np.where(seen[:, None], moments.means - middle, 0.0)
    spread = np.trace(moments.within) / moments.counts.sum()
    kernel = means.T / max(spread, 1e-12)
    return Head(kernel, -0.5 * (means.T * kernel).sum(axis=0) - middle @ kernel)


def with_unseen(head: Head, seen: Tensor) -> Head:
    """Give classes without frames the mean of the others, less a margin.

    Args:
        head: of all classes.
        seen: (classes,) bool.
    """
    if seen.all():
        return head
    kernel, bias = head.kernel.copy(), head.bias.copy()
    kernel[:, ~seen] = head.kernel[:, seen].mean(axis=1, keepdims=True)
    bias[~seen] = head.bias[seen].mean() - UNSEEN_MARGIN
    return Head(kernel, bias)


def _loaded(scatter: Tensor, strength: float, width: int) -> Tensor:
    """Return a scatter with its mean diagonal times `strength` added to the diagonal."""
    load = strength * np.trace(scatter) / width
    loaded: Tensor = scatter + max(load, 1e-12) * np.eye(len(scatter))
    return loaded


HEADS: Mapping[str, Callable[[Moments, float, int], Head]] = {
    "ridge": ridge,
    "lda": lda,
    "ncm": class_means,
}
