"""A detector of another tool teaches a robot that learns boxes."""

import cv2
import pytest
from bag_writer import START_NS
from foreign_models import CELL, CELLS, LABELS, SIDE, corners, picture, write_yolox
from tiny_versions import TINY

from cloud_server.models.imported.bundle import write_imported
from cloud_server.models.imported.engine_file import Wish, look_at
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.examples.source import source_of
from edge_agent.labeling.teacher.lesson import LessonOptions, teach
from fleet_model.errors import SettingsError
from fleet_model.types import Box
from fleet_model.workloads.object_detector import ObjectDetector
from fleet_model.workloads.object_detector.imported import ImportedDetector

LABELLED, BARE = 120, 60


def blocks_of(number):
    """Return none, one or two blocks, of changing colors and places."""
    places = [((3 * number) % 7, number % CELLS), ((5 * number + 2) % 7, (number + 2) % CELLS)]
    kinds = (LABELS[number % 2], LABELS[(number // 2) % 2])
    chosen = [(kind, c % CELLS, r) for kind, (c, r) in zip(kinds, places, strict=True)]
    return chosen[: number % 3]


def boxes_of(number):
    """Return the same as boxes, as a set."""
    return {
        Box(label=kind, **dict(zip(("x0", "y0", "x1", "y1"), corners(c, r), strict=True)))
        for kind, c, r in blocks_of(number)
    }


@pytest.fixture
def frames(tmp_path):
    """Write a data set of which a person has seen the first frames; two a second."""
    folder, rows = tmp_path / "frames", []
    folder.mkdir()
    for number in range(LABELLED + BARE):
        image = picture(*blocks_of(number), seed=number)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image[..., ::-1])
        seen = number < LABELLED
        rows.append(
            ManifestRow(
                file=f"{number:03d}.png", topic="/camera", source="r1", width=SIDE, height=SIDE,
                stamp_ns=START_NS + number * 500_000_000, seen=seen,
                boxes=tuple(boxes_of(number)) if seen else (),
            )
        )  # fmt: skip
    write_manifest(folder / MANIFEST, rows)
    return folder


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory):
    """Return what writes the bundle of a file whose classes have these places in LABELS."""
    folder = tmp_path_factory.mktemp("bundles")
    file = write_yolox(folder / "yolox.onnx")

    def write(*classes):
        reading = look_at(file, Wish(), 2).reading.model_copy(update={"classes": classes})
        workload = ImportedDetector(LABELS, SIDE, reading.model_dump(mode="json"))
        out = folder / "-".join(map(str, classes))
        out.mkdir()
        write_imported(file, workload, TINY, 5, "2026-12-01T10:00:00+00:00", out)
        return out

    return write


def test_its_boxes_are_what_the_next_round_learns(robot, frames, bundle_of):
    settings, told = robot(frames), []
    options = LessonOptions(teacher=bundle_of(0, 1), classes=LABELS)
    done = teach(settings, options, told.append)
    assert done["teacher"] == "yolox.onnx"
    assert set(done["least"]) == set(LABELS)
    assert done["asked"] == BARE - done["kept_for_measuring"]
    taught = {}
    for one in source_of(settings, pseudo=True).examples(LABELS, boxes=True):
        number = (one.raw.stamp_ns - START_NS) // 500_000_000
        assert (number >= LABELLED) == bool(one.taught)
        if one.taught:
            taught[number] = one
    assert len(taught) == done["frames"] > BARE / 3
    for number, one in taught.items():
        assert set(one.boxes) == boxes_of(number) != set()  # exactly where the blocks are
        assert (one.held_out, one.seen, one.taught) == (False, True, 0.5)
        assert ObjectDetector(LABELS, SIDE).target(one).weight == 1
    assert one.boxes[0].x1 - one.boxes[0].x0 == CELL


def test_one_that_cannot_find_a_label_would_teach_that_it_is_nothing(robot, frames, bundle_of):
    options = LessonOptions(teacher=bundle_of(0, -1), classes=LABELS)
    with pytest.raises(SettingsError, match=r"knows blue, and none of red, .* taught as nothing"):
        teach(robot(frames), options, print)
