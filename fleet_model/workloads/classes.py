"""One class for each whole input, answered as logits: what workloads that do so share."""

from collections.abc import Sequence

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.types import Example, Prediction, Target, Tensor, Tensors
from fleet_model.workload import Certainty, OwnTruth


def class_target(labels: Sequence[str], example: Example) -> Target:
    """Return the index of an example's label; raises FrameError for one that is not known."""
    try:
        index = labels.index(example.label or "")
    except ValueError:
        raise FrameError(
            f"unknown label {example.label!r}; this workload knows {', '.join(labels)}"
        ) from None
    return Target(tensors={"class": np.array(index, np.int32)})


def ranked(labels: Sequence[str], logits: Tensor) -> Sequence[Prediction]:
    """Return all classes, best first, by their softmax probability; `logits` are (labels,)."""
    scores = np.exp(log_softmax(logits[None]))[0]
    order = np.argsort(-logits, kind="stable")
    return [Prediction(label=labels[i], score=float(scores[i])) for i in order]


def accuracy(outputs: Tensors, targets: Tensors) -> float:
    """Return the share of rows whose best class is right, 0..1."""
    return float(np.mean(outputs["logits"].argmax(axis=-1) == targets["class"]))


def cross_entropy(outputs: Tensors, targets: Tensors) -> float:
    """Return the mean over the rows, in nats."""
    logits, classes = outputs["logits"], targets["class"]  # (batch, labels), (batch,)
    return float(-np.mean(log_softmax(logits)[np.arange(len(classes)), classes]))


def class_certainty(outputs: Tensors, targets: Tensors) -> Certainty:
    """Return the best class of each row with its probability; see Workload."""
    classes = outputs["logits"].argmax(axis=-1)  # (batch,)
    scores = np.exp(log_softmax(outputs["logits"])).max(axis=-1)
    return Certainty(classes, scores, classes == targets["class"])


def class_own_truth(outputs: Tensors, least: Tensor) -> OwnTruth | None:
    """Return the best class if its probability is enough; see Workload."""
    scores = np.exp(log_softmax(outputs["logits"][None]))[0]  # (labels,)
    best = int(scores.argmax())
    if scores[best] < least[best]:
        return None
    target = Target(tensors={"class": np.array(best, np.int32)})
    return OwnTruth(target, np.array([best]))


def log_softmax(logits: Tensor) -> Tensor:
    """Return log probabilities over the last axis, float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
