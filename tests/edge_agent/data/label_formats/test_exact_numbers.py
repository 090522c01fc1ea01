import struct
import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_agent.data.label_formats.exact_numbers import (
    coco_corners,
    coco_numbers,
    exact,
    rounded,
    shortest_share,
    yolo_box,
    yolo_numbers,
)
from fleet_model.types import Box

pytestmark = pytest.mark.base

finite = st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0)
in_picture = st.floats(0, 4096)
corners = st.tuples(*[in_picture | finite] * 4)
sizes = st.integers(1, 10_000)


def bits(box):
    return struct.pack("<4d", *(corner + 0.0 for corner in (box.x0, box.y0, box.x1, box.y1)))


@given(corners, sizes, sizes)
@example((0.0, 5e-324, 1e-300, 1e308), 1280, 720)
@example((sys.float_info.max, -sys.float_info.max, sys.float_info.max, 1.0), 10_000, 3)
@example((-0.1, 0.1, 0.30000000000000004, 1 / 3), 3, 7)
def test_a_box_survives_yolo_text_to_the_last_bit(found, width, height):
    box = Box(label="a", x0=found[0], y0=found[1], x1=found[2], y1=found[3])
    texts = yolo_numbers(box, width, height)
    assert bits(yolo_box("a", tuple(map(exact, texts)), width, height)) == bits(box)
    assert not any(character in "eE+" for text in texts for character in text)


@given(corners)
@example((0.0, 5e-324, 1e-300, 1e308))
def test_a_box_survives_coco_numbers_to_the_last_bit(found):
    box = Box(label="a", x0=found[0], y0=found[1], x1=found[2], y1=found[3])
    x0, y0, x1, y1 = coco_corners(tuple(map(Decimal, coco_numbers(box))))
    assert bits(Box(label="a", x0=x0, y0=y0, x1=x1, y1=y1)) == bits(box)


@given(st.integers(0, 10**6), st.integers(0, 6), sizes)
def test_a_share_that_somebody_typed_is_found_again(digits, decimals, whole):
    typed = Fraction(digits, 10**decimals)
    found = shortest_share(rounded(typed * whole), whole)
    assert found.decimals <= decimals
    assert abs(Fraction(found.digits, 10**found.decimals) - typed) * whole < 1e-6


@given(finite | st.floats(0, 640) | st.integers(0, 640).map(float), sizes)
@example(3.84, 640)
@example(0.5, 1)
@example(64.0, 641)
@example(-0.125, 24)
def test_no_decimal_with_fewer_places_gives_the_value_back(value, whole):
    found = shortest_share(value, whole)
    assert rounded(Fraction(found.digits * whole, 10**found.decimals)) == value
    for decimals in range(max(0, found.decimals - 3), found.decimals):
        nearest = round(Fraction(value) * 10**decimals / whole)
        assert nearest * whole / 10**decimals != value


def test_yolo_text_of_a_whole_picture_is_short():
    box = Box(label="a", x0=0.0, y0=0.0, x1=1280.0, y1=720.0)
    assert yolo_numbers(box, 1280, 720) == ("0.5", "0.5", "1", "1")
    box = Box(label="a", x0=10.1, y0=2.0, x1=15.3, y1=4.0)
    assert coco_numbers(box) == ("10.1", "2", "5.2", "2")


@given(st.floats(0, 1), sizes)
def test_corners_are_rounded_once(center, width):
    text = repr(center)
    box = yolo_box("a", (exact(text), exact("0.5"), exact("0.1"), exact("1")), width, 1)
    assert box.x0 == float((Fraction(text) - Fraction("0.1") / 2) * width)


@given(st.text(max_size=12) | st.from_regex(r"[-+.0-9eE]{1,12}", fullmatch=True))
def test_any_text_is_a_number_or_a_value_error(text):
    try:
        number = exact(text)
    except ValueError:
        return
    assert number == Fraction(text)


@pytest.mark.parametrize(
    "text", ["1e999999999", "1" * 2000, "nan", "inf", "1_0", "", "\u0663", "0x1"]
)
def test_what_is_no_number_or_never_ends_is_refused(text):
    with pytest.raises(ValueError, match="is no number"):
        exact(text)


def test_a_number_beyond_all_doubles_is_refused():
    with pytest.raises(ValueError, match="beyond all doubles"):
        rounded(Fraction(10) ** 400)
