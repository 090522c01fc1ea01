import numpy as np
import pytest

from edge_agent.data.box_drawing import with_boxes
from fleet_model.types import Box, Prediction

pytestmark = pytest.mark.base

GREEN, RED, BLUE, BROWN = (26, 127, 80), (201, 60, 48), (52, 104, 176), (176, 112, 0)


def cup(box, score=0.5, label="cup"):
    return Prediction(label=label, score=score, box=box)


def true(box, label="cup"):
    x0, y0, x1, y1 = box
    return Box(label=label, x0=x0, y0=y0, x1=x1, y1=y1)


def drawn(found, truth=None, height=480, width=640):
    picture = np.zeros((height, width, 3), np.uint8)
    result = with_boxes(picture, found, truth)
    assert not picture.any()  # the frame itself is for others, too
    assert result.shape == picture.shape
    return result


def colors(picture):
    """Return which of the four colors are there."""
    named = {"green": GREEN, "red": RED, "blue": BLUE, "brown": BROWN}
    return {name for name, color in named.items() if (picture == color).all(axis=-1).any()}


def test_a_box_is_drawn_around_what_was_found_and_leaves_it_visible():
    picture = drawn([cup((20.4, 39.6, 120.0, 90.0))], height=100, width=160)
    assert picture[40, 20:120].any(axis=-1).all()
    assert picture[40:90, 120].any(axis=-1).all()
    assert not picture[60:80, 40:100].any()


def test_what_has_no_box_is_not_drawn():
    assert not drawn([Prediction(label="cup", score=0.5)]).any()
    assert not drawn([]).any()


def test_beside_true_boxes_right_is_green_wrong_is_red_and_missed_is_brown():
    here, there = (100, 100, 200, 200), (400, 100, 500, 200)
    assert colors(drawn([cup(here)])) == {"blue"}
    assert colors(drawn([cup(here)], [])) == {"red"}  # somebody has said that nothing is there
    assert colors(drawn([cup(here)], [true(here)])) == {"green"}
    assert colors(drawn([cup(here)], [true(here, "jug")])) == {"red", "brown"}
    assert colors(drawn([cup(here)], [true(there)])) == {"red", "brown"}
    assert colors(drawn([], [true(there)])) == {"brown"}
    assert colors(drawn([cup((100, 100, 150, 200))], [true(here)])) == {"green"}  # half of it
    assert colors(drawn([cup((100, 100, 149, 200))], [true(here)])) == {"red", "brown"}


def test_one_true_box_makes_one_box_right_the_surest():
    here, near = (100, 100, 200, 200), (104, 100, 204, 200)
    picture = drawn([cup(here, 0.3), cup(near, 0.9)], [true(here)])
    assert colors(picture) == {"green", "red"}
    assert tuple(picture[150, 204]) == GREEN


def letters(picture):
    """Return the rows and columns of (nearly) white pixels."""
    return np.nonzero((picture > 190).all(axis=-1))


@pytest.mark.parametrize(
    "box",
    [(0, 0, 320, 240), (-50, -50, 30, 30), (300, 200, 400, 300), (150, 0, 170, 239), (5, 5, 6, 6)],
)
def test_a_title_lies_in_the_picture_wherever_the_box_is(box):
    picture = drawn([cup(box, 0.87)], height=240, width=320)
    rows, columns = letters(picture)
    assert rows.max() - rows.min() >= 7
    assert columns.max() - columns.min() >= 45  # all of "cup 87%"


def test_titles_of_boxes_side_by_side_do_not_cover_each_other():
    found = [cup((100 + 6 * i, 100, 200 + 6 * i, 200), 0.9 - i / 10) for i in range(4)]
    alone = [len(letters(drawn([one]))[0]) for one in found]
    assert len(letters(drawn(found))[0]) == sum(alone)


def test_letters_and_lines_grow_with_the_picture():
    def heights(height, width):
        box = (0.3 * width, 0.3 * height, 0.6 * width, 0.6 * height)
        picture = drawn([cup(box)], height=height, width=width)
        rows = letters(picture)[0]
        column = picture[:, round(0.55 * width)].any(axis=-1)
        return rows.max() - rows.min() + 1, column.sum() / 2

    small, large = heights(240, 320), heights(2160, 3840)
    assert small[0] >= 8
    assert 3 * small[0] <= large[0] <= 5 * small[0]
    assert large[1] >= 3 * small[1]


def test_a_long_label_is_shortened_and_a_picture_of_few_pixels_is_no_error():
    picture = drawn([cup((100, 100, 200, 200), 0.5, "a very long label " * 5)])
    columns = letters(picture)[1]
    assert columns.max() - columns.min() < 260
    drawn([cup((0, 0, 3, 3), 0.5, "Straße")], height=3, width=4)
