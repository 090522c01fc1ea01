"""Pictures of 64 pixels to compress a classifier on: the robot camera, and Fashion-MNIST.

10,000 train and, of each, at least 4,000 test. Half of the camera's tests are frames that robots
recorded after those that train, half are of robots that nobody has trained on, most of them in
halls of their own. Both are as the image classifier takes them: (n, 64, 64, 3) uint8.
"""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.environments import ROOT
from benchmarks.fashion import CLASSES, Pictures, read_fashion
from benchmarks.measure import say
from fleet_model.durable import writing
from fleet_model.types import Frame, Tensor
from fleet_model.workloads.image_classifier import ImageClassifier

SIZE = 64
TRAINING, TESTS = 10_000, 4_000
SEEN = tuple(f"hall-{hall}/r{robot}" for hall in range(1, 6) for robot in range(1, 5))
UNSEEN = (
    *(f"hall-{hall}/r5" for hall in range(1, 6)),
    *(f"hall-{hall}/r{robot}" for hall in range(6, 9) for robot in range(1, 6)),
)
STAY = 4  # frames at most in which a sign is seen: these many between what trains and what tests
CAMERA, FASHION = "camera", "fashion"


class Data(NamedTuple):
    """What trains and what tests."""

    inputs: Tensor  # (n, SIZE, SIZE, 3) uint8
    classes: Tensor  # (n,) int64
    test_inputs: Tensor
    test_classes: Tensor
    labels: tuple[str, ...]


def read(name: str, work: Path, seed: int = 0) -> Data:
    """Return a data set by name; the camera's pictures are drawn once and kept in `work`."""
    return camera(work, seed) if name == CAMERA else fashion(work)


def fashion(work: Path) -> Data:
    """Return Fashion-MNIST, each picture at SIZE pixels, gray as three equal colors."""
    train, test = read_fashion(work)
    train = train.part(slice(TRAINING))
    labels = tuple(f"class {number}" for number in range(CLASSES))
    return Data(_grown(train), train.classes, _grown(test), test.classes, labels)


def camera(work: Path, seed: int) -> Data:
    """Return the robot camera's pictures."""
    kept = work / f"camera-{seed}.npz"
    script = _script()
    if not kept.exists():
        say(f"drawing what {len(SEEN) + len(UNSEEN)} robots see, once")
        each, tested = TRAINING // len(SEEN), TESTS // 2 // len(SEEN)
        parts = []
        for robot in SEEN:
            frames = [*_drawn(script, robot, seed, each + STAY + tested, "dirichlet")]
            parts.append((frames[:each], frames[each + STAY :]))
        unseen = [[*_drawn(script, robot, seed, tested, "uniform")] for robot in UNSEEN]
        train = _stacked([one for part, _ in parts for one in part])
        test = _stacked([one for part in [p for _, p in parts] + unseen for one in part])
        work.mkdir(parents=True, exist_ok=True)
        with writing(kept) as stream:
            np.savez(stream, *train, *test)
    with np.load(kept) as made:
        return Data(*(made[f"arr_{n}"] for n in range(4)), script.LABELS)


def _grown(pictures: Pictures) -> Tensor:
    import cv2

    grown = [cv2.resize(one, (SIZE, SIZE)) for one in pictures.pixels]
    return np.repeat(np.stack(grown)[..., None], 3, axis=3)


def _drawn(
    script: Any, robot: str, seed: int, frames: int, prior: str
) -> Iterator[tuple[Tensor, int]]:
    """Yield what a robot sees, as the classifier takes it, and its class."""
    import cv2

    encode = ImageClassifier(script.LABELS, image_size=SIZE).encode
    look = script.robot_look(robot, seed, prior)
    for shot in script.shots(robot, look, frames, seed):
        rgb = cv2.imdecode(shot.jpeg, cv2.IMREAD_COLOR)[..., ::-1]
        frame = Frame(
            source="camera", topic=robot, stamp_ns=shot.header_ns, data=b"", format="rgb8",
            decode=lambda rgb=rgb: rgb,
        )  # fmt: skip
        picture = encode(frame).inputs["image"]
        yield picture.round().astype(np.uint8), script.LABELS.index(shot.label)


def _stacked(drawn: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    inputs, classes = zip(*drawn, strict=True)
    return np.stack(inputs), np.array(classes, np.int64)


def _script() -> Any:
    """Return datasets/robot_camera.py as a module."""
    spec = importlib.util.spec_from_file_location(
        "robot_camera", ROOT / "datasets" / "robot_camera.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its data classes ask for it
    spec.loader.exec_module(module)
    return module
