"""Boxes around outlines, against masks that are counted pixel by pixel."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_agent.data.label_formats.coco.outline import outline_corners

pytestmark = pytest.mark.base

masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9))


def runs_of(mask):
    """Return the lengths of runs of 0 and 1 in turn, column by column."""
    counts, value = [0], False
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def packed(counts):
    """Return runs as pycocotools packs them: five bits a character, the lowest first."""
    text = ""
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            is_last = value == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if is_last else 32))
            if is_last:
                break
    return text


@given(masks, st.booleans())
def test_the_box_of_a_mask_is_that_of_its_pixels(mask, is_packed):
    counts = runs_of(mask)
    found = outline_corners(
        {"size": list(mask.shape), "counts": packed(counts) if is_packed else counts}
    )
    ys, xs = np.nonzero(mask)
    expected = (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1) if len(xs) else None
    assert found == expected


def test_packed_runs_are_those_of_pycocotools():
    """pycocotools 2.0.11 packs rows 60 to 119 of columns 80 and 81 of 240 x 320 pixels so."""
    text = "lib0l1d50Tgg1"
    assert packed([19260, 60, 180, 60, 57240]) == text
    assert outline_corners({"size": [240, 320], "counts": text}) == (80, 60, 2, 60)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["size", "counts"]), inner)
        ),
        max_leaves=9,
    )
)
def test_anything_else_is_a_value_error(segmentation):
    with suppress(ValueError):
        found = outline_corners(segmentation)
        assert found is None or len(found) == 4


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [4, 4], "counts": [0, 17]},
        {"size": [1 << 40, 1 << 40], "counts": [0, 1]},
        {"size": [4, 4], "counts": [0, -1]},
        {"size": [4], "counts": [0, 1]},
        {"size": [4, 4], "counts": "\u1234"},
        {"size": [4, 4], "counts": "o" * 100},
    ],
)
def test_a_mask_that_is_none_is_refused(mask):
    with pytest.raises(ValueError, match="mask"):
        outline_corners(mask)
