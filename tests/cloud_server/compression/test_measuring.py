import numpy as np
import pytest

from cloud_server.compression.measuring import Latency, Row, Scores, latencies, scores, table
from fleet_model.errors import TrainingError


def test_scores_by_hand():
    answers = {"a": [2, 1], "b": [0, 3], "c": [5, 4], "d": [1, 9]}
    found = scores(
        lambda one: np.array(answers[one]), "abcd", ["no", "no", "no", "yes"], ["no", "yes"]
    )
    assert found.accuracy == 3 / 4  # b is wrong
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_an_answer_that_is_no_number_is_no_label():
    with pytest.raises(TrainingError, match="the model answers"):
        scores(lambda one: np.array([np.nan, 0]), "a", ["no"], ["no", "yes"])


def test_models_are_asked_in_turn_and_warmed_up():
    asked = []
    asks = {name: lambda one, name=name: asked.append(name + one) for name in "xy"}
    found = latencies(asks, "0123", warm=2)
    assert asked == ["y0", "x0", "x1", "y1", "y2", "x2", "x3", "y3"]
    assert set(found) == {"x", "y"}
    assert found["x"].p95_ms >= found["x"].p50_ms > 0


def test_the_table_compares_with_its_first_row():
    rows = [
        Row("teacher", 90_000_000, 22_500_000, Scores(0.8, 0.79), Latency(6.0, 9.0)),
        Row("student", 30_000_000, 7_500_000, Scores(0.799, 0.78), Latency(2.0, 3.0)),
    ]
    assert table(rows).splitlines()[2:] == [
        "| teacher | 90.0 MB | 22.50 M | 0.800 | 0.790 | 6.00 ms | 9.00 ms |",
        "| student | 30.0 MB (-67%) | 7.50 M | 0.799 | 0.780 | 2.00 ms (3.0x) | 3.00 ms |",
    ]
