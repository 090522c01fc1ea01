import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.pictures.encode import encode_tiff
from fleet_model.errors import FrameError
from fleet_model.pictures.image_file import image_frame

pytestmark = pytest.mark.base


def frame_of(content):
    return image_frame(content, "set", "a", 7, "set/a")


def test_a_tiff_of_depth_keeps_its_numbers_and_has_no_colors():
    depth = np.array([[0.5, np.nan, 2.25], [1e-3, np.inf, 65.0]], np.float32)
    frame = frame_of(encode_tiff(depth))
    assert (frame.width, frame.height, frame.format) == (3, 2, "tiff")
    np.testing.assert_array_equal(frame.pixels(), depth)
    with pytest.raises(FrameError, match="tiff") as caught:
        frame.decode()
    assert caught.value.reason == "not a color picture"


def test_sixteen_bits_stay_sixteen_bits():
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    frame = frame_of(cv2.imencode(".png", pixels)[1].tobytes())
    np.testing.assert_array_equal(frame.pixels(), pixels)
    assert frame.decode().dtype == np.uint8


@given(st.binary(max_size=200), st.sampled_from([b"II*\0", b"MM\0*", b"\xff\xd8\xff", b""]))
def test_any_bytes_are_a_frame_or_a_frame_error(content, start):
    message = "set/a: "
    try:
        frame_of(start + content).pixels()
    except FrameError as error:
        message = str(error)
    assert message.startswith("set/a: ")
