import cv2
import numpy as np
import pytest

from fleet_model.confusion.counts import Confusion
from fleet_model.confusion.picture import confusion_picture, encoded

pytestmark = pytest.mark.base

GREEN, RED = (26, 127, 80), (201, 60, 48)


@pytest.mark.parametrize("count", [2, 12, 130])
def test_a_matrix_of_any_size_shows_right_answers_in_green_and_wrong_ones_in_red(count):
    matrix = 9 * np.eye(count, dtype=np.int64)
    matrix[1] = 0
    matrix[1, 0] = 7  # every frame of this label was answered wrongly
    labels = tuple(f"label {i}" for i in range(count))
    drawn = confusion_picture(Confusion(labels, matrix), "model 3")
    (right, wrong) = ((drawn == colour).all(axis=-1) for colour in (GREEN, RED))
    assert wrong.sum() < right.sum() or count == 2
    first_right, first_wrong = (np.argwhere(found)[0] for found in (right, wrong))
    assert first_wrong[0] > first_right[0]  # one row below
    assert first_wrong[1] == first_right[1]  # in the same column


def test_a_matrix_of_one_label_is_wide_enough_for_its_title():
    drawn = confusion_picture(Confusion(("star",), np.array([[4]])), "model 3")
    assert drawn.shape[1] > 300
    assert (drawn[:, -5:] == 255).all()


def test_an_encoded_picture_has_its_colors_where_they_were():
    content = encoded(np.full((4, 4, 3), (250, 10, 20), np.uint8), ".png")
    back = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert back[0, 0].tolist() == [20, 10, 250]
