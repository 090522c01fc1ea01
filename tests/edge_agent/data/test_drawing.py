import numpy as np
import pytest

from edge_agent.data.drawing import annotated

pytestmark = pytest.mark.base

GREEN, RED, BLUE = (26, 127, 80), (201, 60, 48), (52, 104, 176)


@pytest.mark.parametrize(
    ("truth", "colour"), [("star", GREEN), ("circle", RED), ("", BLUE)], ids=["right", "wrong", "?"]
)
def test_the_frame_is_green_when_right_red_when_wrong_blue_when_nobody_knows(truth, colour):
    picture = np.full((240, 320, 3), 128, np.uint8)
    drawn = annotated(picture, "star", 0.5, truth)
    assert tuple(drawn[0, 0]) == colour
    assert tuple(drawn[-1, 0]) == colour  # the bar below is half as long as the picture
    assert tuple(drawn[-1, -1]) != colour


@pytest.mark.parametrize("shape", [(1, 1, 3), (8, 500, 3), (96, 128, 3), (1080, 1920, 3)])
def test_every_size_gets_a_strip_and_keeps_its_picture(shape):
    picture = np.full(shape, 200, np.uint8)
    drawn = annotated(
        picture, "a label of more than thirty letters", 1.0, "another long label here"
    )
    factor = max(1, 480 / shape[1])
    assert drawn.shape[1] == max(480, shape[1])
    assert drawn.shape[0] == round(shape[0] * factor) + 54
    assert (picture == 200).all()
