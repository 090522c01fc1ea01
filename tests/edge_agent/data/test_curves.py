import numpy as np
import pytest

from edge_agent.data.curves import _ABOVE, _COLORS, _LEFT, _SIDE, curves_picture
from fleet_model.workload import Curves

pytestmark = pytest.mark.base

X = np.linspace(0, 1, 101)


def plot(**lines):
    curves = Curves("Precision and recall", "recall", "precision", lines)
    return curves_picture(curves, "model 3, 40 labelled frames")


def at(picture, x, y):
    """Return whether the first color is at a point of the axes, give or take two pixels."""
    row, column = round(_ABOVE + (1 - y) * _SIDE), round(_LEFT + x * _SIDE)
    around = picture[row - 2 : row + 3, column - 2 : column + 3]
    return bool((around == _COLORS[0]).all(axis=-1).any())


def test_a_line_lies_where_its_values_are():
    picture = plot(cup=(X, 1 - X**2))
    assert all(at(picture, x, 1 - x**2) for x in (0.1, 0.35, 0.5, 0.75, 0.9))
    assert not any(at(picture, x, 0.5 - x / 2) for x in (0.1, 0.35, 0.5, 0.75))


def test_what_is_no_number_interrupts_a_line():
    y = np.where((X > 0.4) & (X < 0.6), np.nan, 0.5)
    picture = plot(cup=(X, y))
    assert [at(picture, x, 0.5) for x in (0.2, 0.5, 0.8)] == [True, False, True]


def test_the_first_line_lies_on_top_and_each_has_a_color_of_its_own():
    picture = plot(mean=(X, X), cup=(X, X), jug=(X, 1 - X))
    assert at(picture, 0.25, 0.25)
    for color in _COLORS[:3]:
        beside = picture[:, _LEFT + _SIDE + 20 :]
        assert (beside == color).all(axis=-1).sum() == 4 * 30  # its mark in the legend
    assert (picture == _COLORS[2]).all(axis=-1).sum() > 500


@pytest.mark.parametrize("count", [1, 21, 22, 90])
def test_any_number_of_lines_and_long_names_fit(count):
    lines = {
        f"a class with quite a long name {i} 0.{i:03d}": (X, X * i / count) for i in range(count)
    }
    picture = plot(**lines)
    assert picture.shape[0] == _ABOVE + _SIDE + 84
    assert (picture[:, -20:] == 255).all()
    assert (picture[_ABOVE + _SIDE :, _LEFT + _SIDE + 40 :] == 255).all()  # none below the axes
