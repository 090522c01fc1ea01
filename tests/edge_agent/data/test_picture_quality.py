from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.picture_quality import is_near_duplicate, picture_hash, sharpness

pytestmark = pytest.mark.base


def scene(seed, shape=(240, 320)):
    """Return something like a room: large patches, edges, little texture."""
    random = np.random.default_rng(seed)
    patches = random.integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(patches, shape[::-1], interpolation=cv2.INTER_NEAREST)


def noisy(picture, seed, sigma=3.0):
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def laplacian_variance(gray):
    """Compute it with NumPy alone, borders reflected as OpenCV does (without the edge)."""
    padded = np.pad(gray.astype(int), 1, mode="reflect")
    laplacian = (
        padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * gray
    )
    return laplacian.var()


def test_sharpness_is_the_variance_of_the_laplacian():
    gray = np.random.default_rng(1).integers(0, 255, (40, 50), np.uint8).astype(int)
    picture = np.repeat(gray[..., None], 3, axis=2).astype(np.uint8)
    assert sharpness(picture) == pytest.approx(laplacian_variance(gray), rel=1e-9)


def test_more_blur_is_less_sharp_and_a_blank_picture_is_not_sharp_at_all():
    picture = scene(1)
    values = [sharpness(cv2.GaussianBlur(picture, (0, 0), s)) for s in (0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]
    assert sharpness(np.full((10, 10, 3), 77, np.uint8)) == 0


def test_sharpness_hardly_depends_on_the_resolution():
    small, large = (sharpness(scene(3, shape)) for shape in [(240, 320), (960, 1280)])
    assert small == pytest.approx(large, rel=0.5)


@given(st.integers(1, 40), st.integers(1, 700))
def test_any_size_of_picture_has_a_sharpness_and_a_hash(height, width):
    picture = np.zeros((height, width, 3), np.uint8)
    assert sharpness(picture) == 0
    assert picture_hash(picture) == 0


def test_a_hash_tells_where_it_gets_darker_to_the_right():
    falling = np.tile(np.linspace(255, 0, 90).astype(np.uint8)[None, :, None], (80, 1, 3))
    assert picture_hash(falling) == 2**64 - 1
    assert picture_hash(falling[:, ::-1]) == 0
    left = falling.copy()
    left[:10] = left[:10, ::-1]  # the first of eight rows
    assert picture_hash(left) == 2**56 - 1


def test_the_same_view_with_noise_is_a_near_duplicate_and_another_view_is_not():
    hashes = [picture_hash(noisy(scene(seed), seed)) for seed in range(30)]
    again = [picture_hash(noisy(scene(seed), seed + 100)) for seed in range(30)]
    assert sum(map(is_near_duplicate, hashes, again)) >= 28
    others = [is_near_duplicate(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert not any(others)


def test_robot_frames_are_sharp_and_different():
    folder = Path(__file__).parents[2] / "data" / "robot_frames" / "images"
    pictures = [cv2.imread(str(file))[..., ::-1] for file in sorted(folder.glob("*.jpg"))]
    assert len(pictures) == 14
    hashes = [picture_hash(np.ascontiguousarray(picture)) for picture in pictures]
    assert not any(is_near_duplicate(a, b) for i, a in enumerate(hashes) for b in hashes[:i])
    for picture in map(np.ascontiguousarray, pictures):
        assert sharpness(picture) > 2 * sharpness(cv2.GaussianBlur(picture, (0, 0), 8))
