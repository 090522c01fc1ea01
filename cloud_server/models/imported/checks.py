"""Let a file answer pictures before a robot does, and say what it finds."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np

from cloud_server.models.export import Progress
from cloud_server.state.words import names
from fleet_model.errors import BundleError, SettingsError
from fleet_model.types import Frame, RgbImage, Tensor
from fleet_model.workloads.object_detector.imported import ImportedDetector
from fleet_model.workloads.object_detector.imported.candidates import Candidates
from fleet_model.workloads.object_detector.imported.stage import ImportedStage

SUFFIXES = (".jpeg", ".jpg", ".png")
MOST_PICTURES = 64
SHIPPED = 8  # pictures of our own, without the operator's
LOOKED_AT = 20  # surest boxes of a picture, where none is sure
FEW = 2.0  # pixels: no box in pixels of the input lies in so small a corner
LOOSE = 1e-3  # scores may be rounded


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a file has answered."""

    pictures: int
    milliseconds: float  # median of an answer, on this machine
    sure: Mapping[str, int]  # label -> boxes that are sure enough to be shown
    doubts: Sequence[str] = ()


def check(
    stage: ImportedStage,
    workload: ImportedDetector,
    classes: Sequence[str],
    samples: Sequence[Path],
    progress: Progress,
) -> Checked:
    """Return what the file answers to pictures, and to noise.

    Args:
        stage: the file.
        workload: what it is to answer.
        classes: names of the file's classes.
        samples: pictures and folders of them, of the operator; without them those that are shipped.
        progress: is told of each picture.

    Raises:
        BundleError: an answer is none: not finite, no scores, no classes, outside of the picture.
        SettingsError: a sample cannot be read, or there are more classes than names.
    """
    frames = list(_sample_frames(samples)) if samples else None
    encoded = (
        [workload.encode(frame) for frame in frames]
        if frames is not None
        else [one.encoded for one in islice(workload.samples(None), SHIPPED)]
    )
    times, sure, found = list[float](), Counter[str](), list[Candidates]()
    for number, one in enumerate(encoded, 1):
        progress(f"picture {number} of {len(encoded)}")
        picture = one.inputs["image"]
        found.append(_judged(stage, picture, classes))
        begin = time.perf_counter()
        answer = workload.decode(stage.answer(picture), one.context)
        times.append((time.perf_counter() - begin) * 1e3)
        sure.update(box.label for box in answer if box.score >= workload.sure_score)
    size = workload.reading.height, workload.reading.width, 3
    _judged(stage, np.random.default_rng(0).integers(0, 256, size).astype(np.float32), classes)
    _require_pixels(workload, found, stage.name)
    doubts = []
    if frames is not None and not sure:
        doubts.append(
            f"no box is surer than {workload.sure_score:g} on any of {len(frames)} pictures: are "
            "--layout, --color, --mean, --std and --fit what the model was trained with?"
        )
    return Checked(
        pictures=len(encoded), milliseconds=median(times), sure=dict(sure), doubts=doubts
    )


def _judged(stage: ImportedStage, picture: Tensor, classes: Sequence[str]) -> Candidates:
    """Return the boxes of a picture that count, after a look at them."""
    outputs, name = stage.raw(picture), stage.name
    told = outputs.get("classes")
    if told is not None and np.abs(told - np.rint(told)).max(initial=0) > LOOSE:
        raise BundleError(
            f"{name}: its classes are {told.ravel()[:3]}, expected whole numbers; if scores and "
            "classes are exchanged: --outputs scores=NAME,classes=NAME"
        )
    found = stage.candidates(picture)
    low, high = found.scores.min(initial=0.0), found.scores.max(initial=0.0)
    if low < -LOOSE or high > 1 + LOOSE:
        raise BundleError(
            f"{name}: its scores are {low:.2f} to {high:.2f}, expected 0 to 1; is --layout "
            "right, or are these logits?"
        )
    surest = found.surest(LOOKED_AT)
    if surest.classes.size and not 0 <= surest.classes.min() <= surest.classes.max() < len(classes):
        raise SettingsError(
            f"--labels: {name} answers class {int(surest.classes.max())}, counted from 0, and "
            f"{len(classes)} names are given: {names(classes)}"
        )
    return surest


def _require_pixels(workload: ImportedDetector, found: Sequence[Candidates], name: str) -> None:
    """Raise BundleError where boxes are not where pictures are."""
    reading = workload.reading
    boxes = np.concatenate([one.boxes for one in found])
    if not len(boxes):
        return
    if not reading.shares and np.abs(boxes).max() <= FEW:
        raise BundleError(
            f"{name}: no box reaches beyond {np.abs(boxes).max():.2f} pixels of "
            f"{reading.width}x{reading.height}: they seem to be shares of the input; say "
            "--boxes shares"
        )
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (middles >= 0).all(axis=1) & (middles <= [reading.width, reading.height]).all(axis=1)
    solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if np.mean(inside & solid) < 0.5:
        raise BundleError(
            f"{name}: of its {len(boxes)} surest boxes {int((~(inside & solid)).sum())} lie "
            f"outside of the picture or have no area, as {np.round(boxes[0], 1).tolist()}; is "
            f"--layout {reading.layout} right, and --boxes "
            f"{'shares' if reading.shares else 'pixels'}?"
        )


def _sample_frames(paths: Sequence[Path]) -> Iterator[Frame]:
    """Yield the pictures, spread over all of them where they are many; raises SettingsError."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise SettingsError(f"--sample {path}: there is no such picture or folder")
    if not files:
        raise SettingsError(f"--sample {paths[0]}: has no {', '.join(SUFFIXES)} file")
    step = -(-len(files) // MOST_PICTURES)
    for file in files[::step]:
        image = _read(file)
        yield Frame(
            source="sample", topic=file.name, stamp_ns=0, data=b"", format="rgb8",
            decode=lambda image=image: image,  # type: ignore[misc]
        )  # fmt: skip


def _read(file: Path) -> RgbImage:
    import cv2

    try:
        content = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise SettingsError(f"--sample {file}: {error.strerror}") from None
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise SettingsError(f"--sample {file}: is not a picture; leave it out")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)  # (height, width, 3) RGB
