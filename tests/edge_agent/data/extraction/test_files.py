import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.extraction.files import (
    FrameNames,
    image_file,
    passes_through,
    require_image_format,
)
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Frame

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
WORDS = st.text(alphabet="ab-_/.1 é", max_size=4)
MOMENTS = st.integers(-3, 3)


def frame(pixels=None, form="bgr8", data=b"bytes", rgb=None):
    def refuse():
        raise FrameError("depth has no colors", "not a color picture")

    return Frame(
        source="run",
        topic="/image",
        stamp_ns=T0,
        data=data,
        format=form,
        decode=(lambda: rgb) if rgb is not None else refuse,
        pixels=(lambda: pixels) if pixels is not None else None,
    )


def read(data):
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else pixels[..., ::-1]


@given(st.lists(st.tuples(WORDS, WORDS, MOMENTS), max_size=40))
def test_no_two_frames_ever_share_a_name(frames):
    names, again = FrameNames(), FrameNames()
    given_out = [names.name(*each) for each in frames]
    assert len(set(given_out)) == len(frames)
    assert given_out == [again.name(*each) for each in frames]
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") for name in given_out)


def test_names_say_source_and_stamp_and_number_equal_stamps():
    names = FrameNames()
    assert names.name("run1", "/left", T0) == f"run1-{T0}"
    assert names.name("run1", "/left", T0) == f"run1-{T0}_1"
    assert names.name("run1", "/left", T0 - 1) == f"run1-{T0 - 1}"
    assert names.name("run1", "/left", T0) == f"run1-{T0}_2"
    assert names.name("run1", "/left", -5) == "run1-m5"


def test_the_second_topic_of_a_source_is_in_its_names_but_no_file_name_is():
    names = FrameNames()
    assert names.name("run1", "/left/image", T0) == f"run1-{T0}"
    assert names.name("run1", "/right/image", T0) == f"run1-right_image-{T0}"
    assert names.name("photos", "circle/0001.JPG", T0) == f"photos-{T0}"
    assert names.name("photos", "circle/0002.JPG", T0) == f"photos-{T0}_1"


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("jpeg", ".jpg"), ("png", ".png"), ("webp", ".webp"), ("bmp", ".bmp"), ("tiff", ".tiff")],
)
def test_keep_passes_image_files_through_byte_for_byte(form, suffix):
    data = memoryview(b"any bytes")
    file = image_file(frame(form=form, data=data), "keep")
    assert (file.data, file.suffix) == (data, suffix)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_keep_writes_raw_pictures_as_png_with_every_bit(dtype, shape):
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype)
    file = image_file(frame(pixels), "keep")
    assert file.suffix == ".png"
    assert np.array_equal(read(file.data), pixels)
    assert read(file.data).dtype == dtype


def test_depth_in_meters_stays_exact_as_tiff_and_is_millimeters_as_png():
    meters = np.array([[0.0004, 1.2344, np.nan], [np.inf, -1.0, 65.536]], np.float32)
    kept = image_file(frame(meters, "32FC1"), "keep")
    assert kept.suffix == ".tiff"
    assert np.array_equal(read(kept.data), meters, equal_nan=True)
    png = image_file(frame(meters, "32FC1"), "png")
    assert png.suffix == ".png"
    assert read(png.data).dtype == np.uint16
    assert read(png.data).tolist() == [[0, 1234, 0], [0, 0, 0]]


def test_jpeg_is_written_from_colors_and_refused_for_depth():
    rgb = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    file = image_file(frame(rgb=rgb), "jpeg")
    assert file.suffix == ".jpg"
    assert np.abs(read(file.data).astype(int) - rgb).max() < 6
    with pytest.raises(FrameError) as raised:
        image_file(frame(np.ones((4, 4), np.uint16), "16UC1"), "jpeg")
    assert raised.value.reason == "not a color picture"


def test_only_what_is_already_right_passes_through():
    assert passes_through(frame(form="jpeg"), "jpeg")
    assert passes_through(frame(form="png"), "png")
    assert not passes_through(frame(form="jpeg"), "png")
    assert not passes_through(frame(form="webp"), "jpeg")
    assert not passes_through(frame(form="bgr8"), "keep")


def test_an_unknown_image_format_is_refused_with_the_choice():
    with pytest.raises(SettingsError, match="keep, jpeg, png"):
        require_image_format("gif")
