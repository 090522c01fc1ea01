"""The picture of a simulation: pixels where values are, and nothing beyond the edge."""

import cv2
import numpy as np
import pytest

from cloud_server.simulation import chart
from cloud_server.simulation.chart import AMBER, TEAL, Bars, Lines, round_up, write_chart
from cloud_server.simulation.picture import write_picture
from cloud_server.simulation.population import Traits
from cloud_server.simulation.simulate import RoundLine, SimulationPlan, SimulationSummary
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import StorageError


def lines(**points):
    return Lines(title="t", x_name="x", points=points, top=1.0, shown=lambda y: f"{y:.1f}")


def bars(parts, names):
    return Bars(
        title="t", x_name="x", names=names, parts=parts, colors=(TEAL, AMBER), shown="{:g}".format
    )


def drawn(tmp_path, panel):
    write_chart(tmp_path / "p.png", "heading", "note", [panel])
    picture = cv2.imread(str(tmp_path / "p.png"))[..., ::-1]
    assert picture.shape == (chart.HEADING + chart.PANEL, chart.WIDTH, 3)
    return picture


def pixels(picture, color):
    """Return the rows and columns with exactly this color, below the legend."""
    rows, columns = np.nonzero((picture == color).all(axis=2))
    below = rows > chart.HEADING + 60
    return rows[below], columns[below]


def test_a_line_goes_from_its_first_value_to_its_last(tmp_path):
    rows, columns = pixels(drawn(tmp_path, lines(a=[(1, 0.0), (4, 1.0)])), TEAL)
    left, right = rows[columns == columns.min()].mean(), rows[columns == columns.max()].mean()
    assert left - right > 0.9 * (chart.PANEL - 160)


def test_parts_of_a_bar_lie_on_each_other(tmp_path):
    picture = drawn(tmp_path, bars({"a": [6.0, 0.0], "b": [2.0, 8.0]}, ["1", "2"]))
    low, high = pixels(picture, TEAL), pixels(picture, AMBER)
    first = high[1] < low[1].max()  # the amber part of the first bar
    assert high[0][first].max() < low[0].min()
    height = low[0].max() - low[0].min()
    assert (high[0][first].max() - high[0][first].min()) == pytest.approx(height / 3, abs=3)
    assert (high[1] > low[1].max()).any()


@pytest.mark.parametrize(
    "panel",
    [lines(), lines(a=[]), lines(a=[(0, 0)]), bars({"a": [], "b": []}, [])],
    ids=["no line", "no point", "one point", "no bar"],
)
def test_there_may_be_nothing_to_draw(tmp_path, panel):
    drawn(tmp_path, panel)


@pytest.mark.parametrize(
    ("value", "end"), [(0, 1), (0.03, 0.03), (7, 8), (30, 30), (31, 40), (1e6, 1e6), (-1, 1)]
)
def test_an_axis_ends_at_the_next_short_number(value, end):
    assert round_up(value) == pytest.approx(end)


def summary(hours=3.0):
    return SimulationSummary(
        robots=1000,
        rounds=2,
        failed=0,
        hours=hours,
        gb_down=1.5,
        gb_up=0.2,
        used=0.9,
        accuracy=0.8,
        wall_s=1.0,
    )


def plan():
    return SimulationPlan(traits=Traits(), settings=ServerSettings(), rounds=2)


@pytest.mark.parametrize("hours", [0.01, 3.0, 100.0])
def test_a_simulation_is_drawn_in_minutes_hours_or_days(tmp_path, hours):
    course = [
        RoundLine(round=1, hours=hours / 2, seconds=9, asked=9, accepted=9, accuracy=0.5, loss=1),
        RoundLine(round=2, hours=hours, seconds=9, asked=9, late=4, accuracy=0.8, loss=1),
    ]
    write_picture(tmp_path / "p.png", plan(), course, summary(hours))
    picture = cv2.imread(str(tmp_path / "p.png"))
    assert picture.shape == (chart.HEADING + 2 * chart.PANEL, chart.WIDTH, 3)
    assert (picture[:, -20:] == 255).all()  # no text is cut off at the edge


def test_a_picture_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"p\.png: cannot be written"):
        write_picture(tmp_path / "file" / "p.png", plan(), [], summary())
