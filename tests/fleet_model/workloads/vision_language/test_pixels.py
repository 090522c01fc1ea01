"""A picture as a vision tower takes it."""

import cv2
import numpy as np
import pytest

from fleet_model.errors import FrameError
from fleet_model.workloads.vision_language.layout import Preparation
from fleet_model.workloads.vision_language.pixels import pixels_of, read_picture, resized

HOW = Preparation(16, 16, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))


def picture(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_the_middle_of_a_wide_picture_is_normalized():
    shown = np.zeros((16, 48, 3), np.uint8)
    shown[:, 16:32] = (255, 51, 0)
    found = pixels_of(shown, HOW)
    assert found.shape == (3, 16, 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], 2.5, rtol=1e-6)
    np.testing.assert_allclose(found[1], -0.8, rtol=1e-6)
    np.testing.assert_allclose(found[2], -0.6, rtol=1e-6)


def test_a_tower_that_takes_no_cut_sees_the_whole_picture():
    shown = np.zeros((16, 64, 3), np.uint8)
    shown[:, :32] = 255
    whole = pixels_of(shown, Preparation(16, 0, 1 / 255, (0, 0, 0), (1, 1, 1)))
    assert whole[:, :, :7].min() > 0.95
    assert whole[:, :, 9:].max() < 0.05


@pytest.mark.torch
@pytest.mark.parametrize(("height", "width"), [(16, 16), (7, 40), (40, 7), (33, 90), (5, 5)])
def test_pixels_are_scaled_as_the_processors_of_transformers_do(height, width):
    import torch
    from torch.nn.functional import interpolate

    shown = picture(33, 70)
    tensor = torch.from_numpy(shown.transpose(2, 0, 1).copy())[None]
    expected = interpolate(tensor, (height, width), mode="bicubic", antialias=True)
    found = resized(shown, height, width).transpose(2, 0, 1)
    assert found.shape == (3, height, width)
    different = np.abs(found.astype(int) - expected[0].numpy().astype(int))
    assert different.max() <= 1
    assert different.mean() < 0.05


def test_a_file_is_read_with_red_first(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 4, 3), (0, 0, 255), np.uint8))
    assert read_picture(str(tmp_path / "red.png"))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("content", "words", "reason"),
    [
        (None, r"a\.jpg: there is no such picture", "with a picture that is not there"),
        (b"", r"a\.jpg: no data", "with a picture that cannot be read"),
        (b"\xff\xd8\xff\xe0 cut", r"a\.jpg: ", "that cannot be read"),
        (b"GIF89a", r"a\.jpg: gif is not read", "that cannot be read"),
    ],
)
def test_what_is_no_picture_is_told(tmp_path, content, words, reason):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(FrameError, match=words) as error:
        read_picture(str(tmp_path / "a.jpg"))
    assert reason in error.value.reason
    assert str(tmp_path) not in str(error.value)


def test_a_photo_is_turned_as_its_camera_was_held(tmp_path):
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, :4] = 255
    cv2.imwrite(str(tmp_path / "a.jpg"), picture)
    stored = (tmp_path / "a.jpg").read_bytes()
    tags = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags
    (tmp_path / "a.jpg").write_bytes(stored[:2] + segment + stored[2:])
    found = read_picture(str(tmp_path / "a.jpg"))
    assert found.shape == (8, 4, 3)
    assert found[:4].mean() > 250, "a quarter to the right: its left is on top"


def test_an_address_is_never_fetched():
    with pytest.raises(FrameError, match="a picture at an address, which is not fetched here"):
        read_picture("https://example.com/a.jpg")


def test_a_large_file_is_not_read(tmp_path):
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(FrameError, match="a picture of 67108865 bytes"):
        read_picture(str(tmp_path / "a.jpg"))


def test_a_picture_that_would_fill_the_memory_is_refused():
    how = Preparation(336, 336, 1 / 255, (0, 0, 0), (1, 1, 1))
    with pytest.raises(FrameError, match="a picture of 2000 x 1 pixels"):
        pixels_of(np.zeros((1, 2000, 3), np.uint8), how)
