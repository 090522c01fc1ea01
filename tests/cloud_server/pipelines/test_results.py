"""What a training says of itself."""

import json

import cv2
import numpy as np
import pytest

from cloud_server.pipelines.results import measured, require_finite, write_results
from cloud_server.pipelines.tokens import Part
from fleet_model.errors import TrainingError

TRUTH, FOUND = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2])


def test_scores_are_those_of_the_answers():
    scores = measured(FOUND, TRUTH, 0.5)
    assert scores["accuracy"] == 0.8
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 4 / 5 + 1) / 3)


def test_the_files_say_the_same(tmp_path):
    part = Part(np.zeros((5, 8), np.int32), np.ones(5, np.int32), TRUTH)
    parts = {"train": part, "validation": part}
    scores = measured(FOUND, TRUTH, 0.5)
    write_results(tmp_path, ["x", "y", "z"], TRUTH, FOUND, scores, parts)
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["accuracy"] == 0.8
    assert told["confusion"] == {
        "labels": ["x", "y", "z"],
        "matrix": [[1, 1, 0], [0, 2, 0], [0, 0, 1]],
    }
    assert told["examples"] == {"train": 5, "validation": 5}
    picture = cv2.imread(str(tmp_path / "confusion_matrix.png"))
    assert picture.shape[0] > 200


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(value):
    with pytest.raises(TrainingError, match="the validation's loss is"):
        require_finite({"accuracy": 0.5, "loss": value}, [], 1e-3)
    with pytest.raises(TrainingError, match=r"smaller --learning-rate than 0\.001"):
        require_finite({"loss": 0.1}, [{"step": 3, "loss": value}], 1e-3)
