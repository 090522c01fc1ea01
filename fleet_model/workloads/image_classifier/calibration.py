"""Pictures that set the ranges of int8 engines, where nothing of a robot may be looked at.

A robot's camera is darker, warmer and closer than a photograph, so every picture is shown in
several lights and cuts. The result depends on the files alone.
"""

from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from fleet_model.errors import SettingsError
from fleet_model.types import Frame, RgbImage

# Lite0 with a trained head on 200 frames of robots never seen: the int8 engine agrees with fp32 in
# .96, .975 and .98 with 16, 64 and 128 samples, and in .99 with 60 frames of the robots' own.
SAMPLES = 64
SUFFIXES = (".jpeg", ".jpg", ".png")
SHIPPED = Path(__file__).parent / "pictures"


def calibration_frames(folder: Path | None = None) -> Iterator[Frame]:
    """Yield SAMPLES frames made from the pictures of a folder; None takes the shipped ones.

    Raises:
        SettingsError: the folder is missing, has no picture, or has one that cannot be read.
    """
    files = _picture_files(SHIPPED if folder is None else folder)
    rng = np.random.default_rng(0)
    for number, file in enumerate(islice(cycle(files), SAMPLES)):
        image = _in_another_light(_cut_out(_read(file), rng), rng)
        if number == 0:
            _add_black_and_white(image)
        yield Frame(
            source="calibration",
            topic=file.name,
            stamp_ns=number,
            data=b"",
            format="rgb8",
            decode=lambda image=image: image,  # type: ignore[misc]
        )


def _picture_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SettingsError(f"calibration: {folder} is not a folder")
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    if not files:
        raise SettingsError(f"calibration: {folder} has no {', '.join(SUFFIXES)} file")
    step = max(1, len(files) // SAMPLES)  # more pictures than samples: spread over all of them
    return files[::step]


def _read(file: Path) -> RgbImage:
    import cv2

    content = np.frombuffer(file.read_bytes(), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise SettingsError(f"calibration: {file.name} is not a picture; remove it")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)  # (height, width, 3) RGB


def _cut_out(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    height, width = image.shape[:2]
    side = max(1, int(min(height, width) * rng.uniform(0.5, 1.0)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    part = image[top : top + side, left : left + side]
    return part[:, ::-1] if rng.random() < 0.5 else part


def _in_another_light(image: RgbImage, rng: np.random.Generator) -> RgbImage:
    light = rng.uniform(0.5, 1.4) * rng.uniform(0.85, 1.15, 3)  # gain, white balance
    return np.clip(image * light, 0, 255).astype(np.uint8)


def _add_black_and_white(image: RgbImage) -> None:
    """Make the range of the input all of 0..255, so that int8 input loses nothing."""
    block = max(1, image.shape[0] // 8)
    image[:block, :block], image[:block, -block:] = 0, 255
