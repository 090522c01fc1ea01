"""Encode a camera frame, know the boxes in it, read the boxes that a model answers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import (
    Encoded,
    Example,
    Frame,
    Metrics,
    Prediction,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
)
from fleet_model.workload import Certainty, Details, OwnTruth, Sample
from fleet_model.workloads.class_names import checked_names
from fleet_model.workloads.image_classifier.calibration import calibration_frames
from fleet_model.workloads.object_detector.average_precision import (
    Found,
    Truth,
    evaluate,
    picture_scores,
)
from fleet_model.workloads.object_detector.details import details_of
from fleet_model.workloads.object_detector.letterbox import Letterbox, Placed
from fleet_model.workloads.object_detector.matching import judge

MIN_SIZE, MAX_SIZE, STEP = 128, 640, 32  # pixels of the square; the trunk halves it five times
MOST_BOXES = 100  # of a frame
ANSWERS = 100  # boxes that a model answers, as COCO counts them
# Boxes from this score on may be something: half of `sure_score`. One that is not sure in a frame
# must not be learned, neither as a thing nor as nothing.
DOUBTFUL = 0.15
LEAST_SIDE = 2.0  # pixels of the square; a smaller box is nothing that a map can show
# The class of a row without a box. Below it: one of class `-2 - number` that is too small to teach,
# and that a model may find or not.
NOTHING = -1


class ObjectDetector:
    """Boxes around things of a few classes, in pixels of the frame."""

    classes_setting = "labels"
    raw_kind = "frame"
    input_ranges: ClassVar[Mapping[str, tuple[float, float]]] = {"image": (0.0, 255.0)}
    features_dtype = "float16"  # of cached features: maps are large
    class_bias = "heat/bias"
    sure_score = 0.3  # less sure boxes are for measures that rank them, not for people

    def __init__(
        self, labels: Sequence[str], image_size: int = 320, crop_size: int | None = None
    ) -> None:
        """Choose what is looked for, and how closely.

        Args:
            labels: at least one class name; their order is that of the model's maps.
            image_size: side of the square input in pixels, a multiple of 32.
            crop_size: side of the part of it that one step learns from, a multiple of 32; at most
                `image_size`, which is the whole frame. None: five eighths of it, as measured in
                docs/benchmarks.md, if these are MIN_SIZE or more.

        Raises:
            SettingsError: one of them is wrong.
        """
        right = isinstance(image_size, int) and MIN_SIZE <= image_size <= MAX_SIZE
        if not right or image_size % STEP:
            raise SettingsError(
                f"image_size is {image_size!r}, expected a multiple of {STEP} from {MIN_SIZE} to "
                f"{MAX_SIZE} pixels"
            )
        self.labels = checked_names(labels, 1)
        self.image_size = image_size
        self.share = 1.0  # of a frame's cells that its input shows
        self.crop_size = _usual_crop(image_size) if crop_size is None else crop_size
        right = isinstance(self.crop_size, int) and MIN_SIZE <= self.crop_size <= image_size
        if not right or self.crop_size % STEP:
            raise SettingsError(
                f"crop_size is {crop_size!r}, expected a multiple of {STEP} from {MIN_SIZE} to "
                f"image_size ({image_size} pixels: no crops)"
            )

    @property
    def task(self) -> Task:
        """An RGB square 0..255 goes in, boxes in its pixels come out, best first."""
        size = self.image_size
        return Task(
            inputs={"image": TensorSpec(shape=(size, size, 3))},
            targets={
                "box": TensorSpec(shape=(MOST_BOXES, 4)),  # x0, y0, x1, y1
                "class": TensorSpec(shape=(MOST_BOXES,), dtype="int32"),  # NOTHING and below: none
            },
            outputs={
                "boxes": TensorSpec(shape=(ANSWERS, 4)),
                "scores": TensorSpec(shape=(ANSWERS,)),  # 0: no box
                "classes": TensorSpec(shape=(ANSWERS,), dtype="int32"),  # index in labels
            },
            measures={"map50": "higher", "map50_95": "higher"},
            answer="boxes",
            classes=self.labels,
        )

    @property
    def training(self) -> TrainConfig:
        """Return how the head trains well."""
        return TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, clip_norm=10.0)

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        sizes = {"image_size": self.image_size, "crop_size": self.crop_size}
        return {"labels": list(self.labels), **sizes}

    @property
    def of_crops(self) -> "ObjectDetector | None":
        """Return the detector of what one step learns from; None: from whole frames."""
        if self.crop_size == self.image_size:
            return None
        crops = ObjectDetector(self.labels, self.crop_size, self.crop_size)
        crops.share = (self.crop_size / self.image_size) ** 2
        return crops

    def crop(
        self, features: Tensors, target: Tensors, rng: np.random.Generator
    ) -> tuple[Tensors, Tensors]:
        """Draw a part of a frame: of its feature maps, and its boxes as they lie to that.

        Parts begin at multiples of 32 pixels, where the cells of all maps do. One with n middles of
        things is 1 + n times as likely as an empty one: with all as likely a robot alone finds a
        sixth less (docs/decisions/0049-crops.md).

        Args:
            features: (H, W, channels) each, of the whole square.
            target: as Task.targets names it.
            rng: draws the place.
        """
        there = target["class"] != NOTHING
        boxes, classes = target["box"][there], target["class"][there]
        first = np.arange(0, self.image_size - self.crop_size + 1, STEP)
        middles = (boxes[classes >= 0, :2] + boxes[classes >= 0, 2:]) / 2
        away = middles - first[:, None, None]  # (places, things, 2)
        inside = ((away >= 0) & (away < self.crop_size)).astype(float)
        chances = np.cumsum(1.0 + inside[..., 0] @ inside[..., 1].T)  # of x, y in order
        drawn = np.searchsorted(chances, rng.random() * chances[-1], side="right")
        x, y = (int(at) for at in first[list(divmod(int(drawn), len(first)))])
        maps = {}
        for name, blocks in features.items():
            stride = self.image_size // blocks.shape[0]
            top, left, cells = y // stride, x // stride, self.crop_size // stride
            maps[name] = blocks[top : top + cells, left : left + cells]
        box = target["box"].copy()
        box[there] = boxes - np.array([x, y, x, y], np.float32)
        return maps, {**target, "box": box}

    def encode(self, raw: Frame) -> Encoded:
        """Decode a frame and fit it into the square: (S, S, 3) float32 0..255, gray bars."""
        # A large JPEG is decoded at half or a quarter, so its own size must be known beforehand.
        picture = raw.reduced(self.image_size) if raw.reduced and raw.width else raw.decode()
        width, height = (raw.width, raw.height) if raw.width else picture.shape[1::-1]
        letterbox = Letterbox.of(width, height, self.image_size)
        image = letterbox.picture(picture, self.image_size).astype(np.float32)
        return Encoded(inputs={"image": image}, context=letterbox)

    def target(self, example: Example) -> Target:
        """Return the boxes of an example as they lie in the square; none teach what is nothing.

        Raises:
            FrameError: nobody has looked at it, a label is unknown, a box is none, or there are
                more than MOST_BOXES: those left out would teach that nothing is there.
        """
        if not example.seen:
            raise FrameError("nobody has said what is in it")
        if len(example.boxes) > MOST_BOXES:
            raise FrameError(f"{len(example.boxes)} boxes; a frame has at most {MOST_BOXES}")
        frame: Frame = example.raw
        width, height = size_of(frame)
        letterbox = Letterbox.of(width, height, self.image_size)
        for box in example.boxes:
            if box.label not in self.labels:
                raise FrameError(
                    f"unknown label {box.label!r}; this workload knows {', '.join(self.labels)}"
                )
        corners = np.array([(b.x0, b.y0, b.x1, b.y1) for b in example.boxes]).reshape(-1, 4)
        if not (corners[:, 2:] > corners[:, :2]).all():  # NaN is refused too
            raise FrameError("a box whose right or lower side comes before the other, or no number")
        corners = letterbox.inside(np.clip(corners, 0, [width, height] * 2))
        sides = corners[:, 2:] - corners[:, :2]
        order = np.argsort(-sides.prod(axis=1), kind="stable")  # the largest first
        kept = [i for i in order if sides[i].min() > 0]  # the others lie outside of the frame
        numbers = [self.labels.index(example.boxes[i].label) for i in kept]
        return _as_target(corners[kept], np.array(numbers, np.int32))

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        """Yield pictures of a folder, or the shipped ones, in several lights and cuts."""
        for frame in calibration_frames(folder):
            yield Sample(self.encode(frame))

    def decode(self, outputs: Tensors, context: Placed) -> Sequence[Prediction]:
        """Return the boxes in pixels of the frame, best first; those of no area are left out."""
        boxes = context.outside(np.asarray(outputs["boxes"], np.float64))
        solid = np.all(boxes[:, 2:] > boxes[:, :2], axis=1, keepdims=True)[:, 0]
        scores, classes = outputs["scores"], outputs["classes"]
        return [
            Prediction(
                label=self.labels[int(classes[i])],
                score=float(scores[i]),
                box=(
                    float(boxes[i, 0]),
                    float(boxes[i, 1]),
                    float(boxes[i, 2]),
                    float(boxes[i, 3]),
                ),
            )
            for i in np.argsort(-scores, kind="stable")
            if scores[i] > 0 and solid[i]
        ]

    def class_counts(self, target: Tensors) -> Tensor:
        """Return how many things of each class a frame's boxes show, (classes,)."""
        numbers = target["class"]
        return np.bincount(numbers[numbers >= 0], minlength=len(self.labels)).astype(np.float64)

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        """Return mean average precision at an overlap of .5, and over .5 to .95 (COCO), 0 to 1.

        Where the rows have no box of any class there is nothing to find, and nothing is returned.
        """
        scores = evaluate(*_pictures(outputs, targets), len(self.labels))
        measures = {"map50": scores.map50, "map50_95": scores.map}
        return {name: value for name, value in measures.items() if not math.isnan(value)}

    def measure_each(self, outputs: Tensors, targets: Tensors) -> Tensor:
        """Return how good the boxes of each picture are, (pictures,) 0 to 1."""
        return picture_scores(*_pictures(outputs, targets), len(self.labels))

    def certainty(self, outputs: Tensors, targets: Tensors) -> Certainty:
        """Return every box from DOUBTFUL on that counts, right at an overlap of .5."""
        judged = judge(*_pictures(outputs, targets), len(self.labels))
        right, wrong = judged.right[:, 0, 0], judged.wrong[:, 0, 0]
        rows = (right | wrong) & (judged.scores >= DOUBTFUL)
        return Certainty(judged.classes[rows], judged.scores[rows], right[rows])

    def own_truth(self, outputs: Tensors, least: Tensor) -> OwnTruth | None:
        """Return the boxes of a frame if there are some and all are sure; see Workload.

        Less sure than DOUBTFUL is nothing. A frame without a box teaches only what the model says
        already, also where it has missed something, and is no truth.
        """
        there = outputs["scores"] >= DOUBTFUL
        boxes, classes = outputs["boxes"][there], outputs["classes"][there]
        sides = boxes[:, 2:] - boxes[:, :2]
        sure = (outputs["scores"][there] >= least[classes]).all() and (sides > 0).all()
        if not there.any() or not sure:
            return None
        order = np.argsort(-sides.prod(axis=1), kind="stable")  # the largest first
        return OwnTruth(_as_target(boxes[order], classes[order]), classes)

    def details(self, outputs: Tensors, targets: Tensors) -> Details:
        """Return the average precision of each class, and precision against recall."""
        return details_of(evaluate(*_pictures(outputs, targets), len(self.labels)), self.labels)


def _usual_crop(image_size: int) -> int:
    """Return five eighths of a side in whole STEPs; all of it where that is less than MIN_SIZE."""
    side = round(image_size * 5 / 8 / STEP) * STEP
    return side if side >= MIN_SIZE else image_size


def _as_target(corners: Tensor, numbers: Tensor) -> Target:
    """Return boxes, (n, 4) in the square, and their classes, (n,), as the loss takes them."""
    boxes = np.zeros((MOST_BOXES, 4), np.float32)
    classes = np.full(MOST_BOXES, NOTHING, np.int32)
    boxes[: len(corners)] = corners
    sides = (corners[:, 2:] - corners[:, :2]).min(axis=1, initial=np.inf)
    classes[: len(corners)] = np.where(sides >= LEAST_SIDE, numbers, -2 - numbers)
    return Target(tensors={"box": boxes, "class": classes})


def _pictures(outputs: Tensors, targets: Tensors) -> tuple[list[Found], list[Truth]]:
    """Return what was found in each picture, and what is there."""
    answers = zip(outputs["boxes"], outputs["scores"], outputs["classes"], strict=True)
    found = [Found(b[s > 0], s[s > 0], c[s > 0]) for b, s, c in answers]
    truth = []
    for boxes, classes in zip(targets["box"], targets["class"], strict=True):
        there = classes != NOTHING
        kinds, small = classes[there], classes[there] < NOTHING
        truth.append(Truth(boxes[there], np.where(small, -2 - kinds, kinds), ignored=small))
    return found, truth


def size_of(frame: Frame) -> tuple[int, int]:
    """Return (width, height) in pixels: by the header where it tells them."""
    if frame.width and frame.height:
        return frame.width, frame.height
    height, width = frame.decode().shape[:2]
    return width, height
