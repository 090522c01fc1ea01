"""How unsure a model is of a frame, from the classes that it has ranked."""

import math
from collections.abc import Sequence

from fleet_model.types import Prediction


def margin(predictions: Sequence[Prediction]) -> float:
    """Return by how much the best class leads, 0 (a tie) to 1.

    The margin of active learning (Scheffer et al. 2001). Small where the model is unsure.
    """
    scores = sorted((p.score for p in predictions), reverse=True)
    return scores[0] - scores[1]


def entropy(predictions: Sequence[Prediction]) -> float:
    """Return the entropy of all classes, 0 (certain) to 1 (all are equally likely).

    It is divided by the logarithm of the number of classes, so that a threshold fits any number.
    """
    terms = (p.score * math.log(p.score) for p in predictions if p.score > 0)
    return -sum(terms) / math.log(len(predictions))


def disagree(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> bool:
    """Return whether two models name another best class."""
    return best(ours).label != best(theirs).label


def best(predictions: Sequence[Prediction]) -> Prediction:
    """Return the class with the highest score."""
    return max(predictions, key=lambda p: p.score)
