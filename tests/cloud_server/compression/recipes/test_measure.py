"""Files are measured as they answer, and the Pareto front is found by value."""

import numpy as np
import pytest

from cloud_server.compression.recipes.measure import front
from cloud_server.compression.recipes.plot import Panel, Point, picture
from cloud_server.simulation.chart import TEAL


def test_the_front_by_hand():
    points = [(1, 5), (2, 4), (2, 5), (3, 3), (4, 4), (3, 3)]
    assert front(points) == [True, True, False, True, False, True]  # of equals, both
    assert front([(1, 1, 9), (1, 1, 8)]) == [False, True]
    assert front([]) == []


@pytest.mark.parametrize("names", [("a", "b", "c"), ("the same",) * 3])
def test_models_of_the_front_are_filled_in_the_picture(names):
    cv2 = pytest.importorskip("cv2")
    points = [Point(n, c, a) for n, c, a in zip(names, (1, 10, 10), (0.8, 0.9, 0.7), strict=True)]
    drawn = picture([Panel("accuracy over size", "MB", points)])
    image = cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    teal = (image == TEAL).all(axis=2).astype(np.uint8)
    opened = cv2.morphologyEx(teal, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    count, _ = cv2.connectedComponents(opened)
    assert count - 1 == 2  # the dots; lines and rings are thinner
    one = picture([Panel("one model alone", "ms", points[:1])])
    assert cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) is not None
