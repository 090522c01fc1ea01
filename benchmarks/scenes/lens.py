"""What a robot's camera makes of the light: lens, white balance, sensor and JPEG."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.layers import HEIGHT, WIDTH

Floats = NDArray[np.float32]
EXPOSURE = (0.92, 1.08)  # factor of a frame's light: lamps flicker, the camera follows
_NOISE = 1 << 21  # normal numbers; a picture takes 921,600 of them from a random place on


@dataclass(frozen=True, eq=False)
class Lens:
    """How one camera differs from others; ranges are in `draw_lens`."""

    light: tuple[float, float, float]  # factor per B, G, R: lamps, gain and white balance together
    gamma: float  # above 1: darker middle tones
    vignette: float  # how much darker the corners are
    blur_px: float  # standard deviation of the lens blur
    motion_px: float  # longest streak that driving draws into a frame
    noise: float  # standard deviation at middle gray, of 255
    jpeg_quality: int

    @cached_property
    def gain(self) -> Floats:
        """Factors of every pixel, (HEIGHT, WIDTH, 3)."""
        down, right = np.linspace(-1, 1, HEIGHT)[:, None], np.linspace(-1, 1, WIDTH)
        lens = 1 - self.vignette * (right**2 + down**2) / 2
        return (lens[..., None] * np.array(self.light)).astype(np.float32)


def draw_lens(rng: np.random.Generator, lamps: Any = (1.0, 1.0, 1.0)) -> Lens:
    """Draw a camera.

    Args:
        rng: draws.
        lamps: factor per B, G, R of the light where it drives.
    """
    light = np.asarray(lamps) * rng.uniform(0.88, 1.14, 3) * rng.uniform(0.8, 1.35)
    return Lens(
        light=tuple(light.tolist()),
        gamma=rng.uniform(0.8, 1.3),
        vignette=rng.uniform(0, 0.45),
        blur_px=rng.uniform(0, 1.5),
        motion_px=rng.uniform(0, 7),
        noise=rng.uniform(1.5, 9),
        jpeg_quality=int(rng.integers(40, 95)),
    )


def expose(scene: Floats, lens: Lens, rng: np.random.Generator) -> bytes:
    """Take a picture of the light (HEIGHT, WIDTH, 3), BGR, 0 to 255; return it as JPEG."""
    half = round(lens.motion_px * rng.uniform(0, 1) / 2)
    if half:
        scene = cv2.filter2D(scene, -1, _streak(half, rng.uniform(-0.4, 0.4)))
    if lens.blur_px > 0.3:
        scene = cv2.GaussianBlur(scene, (0, 0), lens.blur_px)
    scene = scene * lens.gain
    scene *= rng.uniform(*EXPOSURE)
    np.clip(scene, 0, 255, out=scene)
    scene = cv2.pow(scene / 255, lens.gamma) * 255
    begin = rng.integers(0, _NOISE - scene.size)
    grain = _noise()[begin : begin + scene.size].reshape(scene.shape)
    scene += lens.noise * np.sqrt(0.3 + scene * (0.7 / 128)) * grain  # read noise and shot noise
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, lens.jpeg_quality])
    return jpeg.tobytes()


@lru_cache(maxsize=1)
def _noise() -> Floats:
    return np.random.default_rng(0).standard_normal(_NOISE, np.float32)


def _streak(half: int, angle: float) -> Floats:
    """Return a kernel that smears by 2 * half pixels, mostly sideways."""
    kernel = np.zeros((2 * half + 1,) * 2, np.float32)
    x, y = round(half * np.cos(angle)), round(half * np.sin(angle))
    cv2.line(kernel, (half - x, half - y), (half + x, half + y), 1.0)
    return np.asarray(kernel / kernel.sum(), np.float32)
