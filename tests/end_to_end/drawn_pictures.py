"""Pictures of things that are unlike any sign of datasets/robot_camera.py, and of those signs."""

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NEW = ("cone", "pallet")
KNOWN = ("circle", "square", "star", "triangle")


def draw(folder: Path, seed: int = 5) -> Path:
    """Draw forty cones and forty pallets, by label."""
    rng = np.random.default_rng(seed)
    for number in range(80):
        image = np.full((120, 160, 3), rng.integers(40, 90), np.uint8)
        x, y, size = rng.integers(50, 110), rng.integers(45, 75), int(rng.integers(25, 40))
        if number % 2:
            cv2.fillPoly(image, [np.array([[x, y - size], [x - 15, y + size], [x + 15, y + size]])],
                         (0, 110, 255))  # fmt: skip
        else:
            for board in range(-size, size, 10):
                cv2.rectangle(
                    image, (x - size, y + board), (x + size, y + board + 5), (90, 160, 200), -1
                )
        noise = rng.normal(0, 6, image.shape)
        file = folder / NEW[1 - number % 2] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.clip(image + noise, 0, 255).astype(np.uint8))
    return folder


def photograph(folder: Path, robot: str, drive: str, signs: int) -> Path:
    """Write two pictures of each of so many signs of each label, as this robot sees them.

    Every robot meets every label equally often; no two drives have a sign in common.
    """
    camera = robot_camera()
    look, rng = camera.robot_look(robot, 2), camera.generator(2, drive, robot)
    for label in KNOWN:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(signs):
            sign = camera.Encounter(look, label, rng)
            for t in range(2):
                picture = camera.expose(sign.scene(t), look, rng)
                name = f"{robot.replace('/', '-')}-{number:03d}-{t}.jpg"
                (folder / label / name).write_bytes(picture.tobytes())
    return folder


@cache
def robot_camera() -> Any:
    file = Path(__file__).parents[2] / "datasets" / "robot_camera.py"
    spec = importlib.util.spec_from_file_location("robot_camera", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
