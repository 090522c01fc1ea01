import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.confusion.counts import count_confusion

pytestmark = pytest.mark.base

ORDER = ["circle", "square", "star", "triangle"]


def test_a_hand_computed_example():
    pairs = [("circle", "circle")] * 3 + [("circle", "star")] + [("star", "star")] * 2
    pairs += [("star", "circle")] * 2
    confusion = count_confusion(pairs, ORDER)
    assert confusion.labels == ("circle", "star")
    assert confusion.matrix.tolist() == [[3, 1], [2, 2]]
    assert confusion.accuracy == 5 / 8
    # circle: precision 3/5, recall 3/4, F1 2/3; star: precision 2/3, recall 1/2, F1 4/7
    assert confusion.macro_f1 == pytest.approx((2 / 3 + 4 / 7) / 2)


def test_a_label_that_was_only_predicted_or_never_recognised_counts_with_zero():
    confusion = count_confusion([("circle", "circle"), ("square", "triangle")], ORDER)
    assert confusion.labels == ("circle", "square", "triangle")
    assert confusion.macro_f1 == pytest.approx(1 / 3)


def test_without_a_pair_there_is_no_score():
    confusion = count_confusion([], ORDER)
    assert (confusion.labels, confusion.matrix.shape) == ((), (0, 0))
    assert (confusion.accuracy, confusion.macro_f1, confusion.count) == (None, None, 0)


@given(st.lists(st.tuples(st.sampled_from(ORDER), st.sampled_from(ORDER)), min_size=1))
def test_macro_f1_is_the_mean_of_the_harmonic_means_of_precision_and_recall(pairs):
    scores = []
    for label in {label for pair in pairs for label in pair}:
        right = sum(pair == (label, label) for pair in pairs)
        precision = right / max(1, sum(predicted == label for _, predicted in pairs))
        recall = right / max(1, sum(truth == label for truth, _ in pairs))
        scores.append(2 * precision * recall / (precision + recall) if right else 0)
    confusion = count_confusion(pairs, ORDER)
    assert confusion.macro_f1 == pytest.approx(np.mean(scores))
    assert confusion.accuracy == pytest.approx(np.mean([t == p for t, p in pairs]))
