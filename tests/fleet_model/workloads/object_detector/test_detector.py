"""What data mean to the detector, by value."""

from dataclasses import replace

import numpy as np
import pytest

from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Box, Example, Frame, Prediction
from fleet_model.workload import build_workload, rebuild
from fleet_model.workloads.object_detector import ObjectDetector
from fleet_model.workloads.object_detector.detector import ANSWERS, MOST_BOXES, NOTHING
from fleet_model.workloads.object_detector.letterbox import GRAY, Letterbox

pytestmark = pytest.mark.base


def frame(width=640, height=480, color=200, **given):
    picture = np.full((height, width, 3), color, np.uint8)
    about = {"source": "bag", "topic": "/camera", "stamp_ns": 1, "data": b"", "format": "rgb8"}
    return Frame(**about, decode=lambda: picture, **given)


def example(*boxes, raw=None):
    named = tuple(Box(label=label, x0=a, y0=b, x1=c, y1=d) for label, a, b, c, d in boxes)
    return Example(raw=raw or frame(width=640, height=480), key="k", boxes=named)


@pytest.fixture
def detector():
    return ObjectDetector(["duck", "ball"], 320)


# ------------------------------------------------------------------------------------- letterbox


def test_a_wide_frame_lies_in_the_middle_between_gray_bars(detector):
    encoded = detector.encode(frame())
    image = encoded.inputs["image"]
    assert image.shape == (320, 320, 3)
    assert image.dtype == np.float32
    assert (image[:40] == GRAY).all()
    assert (image[-40:] == GRAY).all()
    assert (image[40:280] == 200).all()
    assert encoded.context == Letterbox(0.5, 0, 40, 640, 480)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), Letterbox(0.5, 40, 0, 480, 640)),
        ((320, 320), Letterbox(1.0, 0, 0, 320, 320)),
        ((160, 80), Letterbox(2.0, 0, 80, 160, 80)),
        ((6400, 1), Letterbox(0.05, 0, 159, 6400, 1)),  # at least one row is left of it
    ],
)
def test_a_frame_of_any_shape_fits(size, expected):
    letterbox = Letterbox.of(*size, 320)
    assert letterbox == expected
    picture = np.full((size[1], size[0], 3), 7, np.uint8)
    assert (letterbox.picture(picture, 320) == 7).any()


def test_boxes_go_in_and_come_out_and_are_cut_off_at_the_edge():
    letterbox = Letterbox.of(640, 480, 320)
    inside = letterbox.inside(np.array([[100.0, 200.0, 300.0, 480.0]]))
    assert inside.tolist() == [[50.0, 140.0, 150.0, 280.0]]
    assert letterbox.outside(inside).tolist() == [[100.0, 200.0, 300.0, 480.0]]
    assert letterbox.outside(np.array([[-5.0, 0.0, 400.0, 300.0]])).tolist() == [
        [0.0, 0.0, 640.0, 480.0]
    ]


def test_a_reduced_picture_gives_boxes_of_the_whole_one(detector):
    small = np.full((240, 320, 3), 90, np.uint8)
    half = replace(frame(), reduced=lambda side: small, width=640, height=480)
    encoded = detector.encode(half)
    assert (encoded.inputs["image"][40:280] == 90).all()
    assert encoded.context == Letterbox(0.5, 0, 40, 640, 480)


def test_a_frame_of_unknown_size_is_decoded_whole(detector):
    small = np.full((120, 160, 3), 90, np.uint8)
    unknown = replace(frame(), reduced=lambda side: small)
    assert detector.encode(unknown).context == Letterbox(0.5, 0, 40, 640, 480)


# ---------------------------------------------------------------------------------------- truth


def test_the_truth_is_boxes_of_the_square_the_largest_first(detector):
    target = detector.target(example(("ball", 10, 20, 50, 60), ("duck", 100, 200, 300, 480)))
    assert target.weight == 1.0
    boxes, classes = target.tensors["box"], target.tensors["class"]
    assert boxes.shape == (MOST_BOXES, 4)
    assert boxes[:2].tolist() == [[50, 140, 150, 280], [5, 50, 25, 70]]
    assert classes[:3].tolist() == [0, 1, NOTHING]
    assert not boxes[2:].any()


def test_things_are_counted_by_class_but_for_those_too_small(detector):
    target = detector.target(
        example(("ball", 10, 20, 50, 60), ("duck", 9, 9, 30, 48), ("ball", 60, 60, 99, 99),
                ("ball", 0, 0, 3, 400))
    )  # fmt: skip
    assert detector.class_counts(target.tensors).tolist() == [1, 2]
    assert detector.class_counts(detector.target(example()).tensors).tolist() == [0, 0]


def test_a_frame_with_nothing_in_it_is_an_example_too(detector):
    assert (detector.target(example()).tensors["class"] == NOTHING).all()


def test_what_cannot_be_seen_in_the_square_teaches_nothing_and_may_be_found(detector):
    target = detector.target(example(("ball", 0, 0, 3, 400), ("duck", 600, 0, 900, 400)))
    boxes, classes = target.tensors["box"], target.tensors["class"]
    assert boxes[:2].tolist() == [[300, 40, 320, 240], [0, 40, 1.5, 240]]  # cut off at the edge
    assert classes[:3].tolist() == [0, -3, NOTHING]  # the ball is 1.5 pixels wide
    rows = {name: tensor[None] for name, tensor in target.tensors.items()}
    found = outputs((0, 0.5, 300, 40, 320, 240), (1, 0.9, 0, 40, 1.5, 240))
    right = {name: tensor[None] for name, tensor in found.items()}
    assert detector.measure(right, rows)["map50"] == 1.0
    assert detector.measure_each(right, rows).tolist() == [1.0]
    without = {n: t[None] for n, t in outputs((0, 0.5, 300, 40, 320, 240)).items()}
    assert detector.measure(without, rows)["map50"] == 1.0
    assert detector.measure_each(without, rows).tolist() == [1.0]


def test_a_frame_with_more_boxes_than_a_row_has_is_refused_not_cut(detector):
    many = [("duck", 0, 0, 10 + i, 10 + i) for i in range(MOST_BOXES)]
    assert (detector.target(example(*many)).tensors["class"] == 0).all()
    with pytest.raises(FrameError, match="101 boxes; a frame has at most 100"):
        detector.target(example(("ball", 0, 0, 5, 5), *many))


@pytest.mark.parametrize("box", [(9, 0, 5, 5), (0, 9, 5, 5), (0, 0, float("nan"), 5)])
def test_a_box_that_is_none_is_refused(detector, box):
    with pytest.raises(FrameError, match="a box whose right or lower side"):
        detector.target(example(("duck", *box)))


def test_an_unknown_label_is_told_with_those_that_are_known(detector):
    with pytest.raises(FrameError, match=r"unknown label 'dcuk'; this workload knows duck, ball"):
        detector.target(example(("dcuk", 0, 0, 10, 10)))


def test_only_a_picture_that_somebody_has_looked_at_teaches_what_is_nothing(detector):
    assert (detector.target(example()).tensors["class"] == NOTHING).all()
    with pytest.raises(FrameError, match="nobody has said what is in it"):
        detector.target(replace(example(), seen=False))


# -------------------------------------------------------------------------------------- answers


def outputs(*rows):
    boxes, scores = np.zeros((ANSWERS, 4), np.float32), np.zeros(ANSWERS, np.float32)
    classes = np.zeros(ANSWERS, np.int32)
    for i, (label, score, *box) in enumerate(rows):
        boxes[i], scores[i], classes[i] = box, score, label
    return {"boxes": boxes, "scores": scores, "classes": classes}


def test_answers_are_in_pixels_of_the_frame_best_first(detector):
    answer = outputs((1, 0.25, 5, 50, 25, 70), (0, 0.5, 50, 140, 150, 280), (0, 0.9, 9, 9, 9, 9))
    found = detector.decode(answer, Letterbox.of(640, 480, 320))
    assert found == [  # the third has no area
        Prediction(label="duck", score=0.5, box=(100.0, 200.0, 300.0, 480.0)),
        Prediction(label="ball", score=0.25, box=(10.0, 20.0, 50.0, 60.0)),
    ]


def test_measures_are_those_of_coco(detector):
    truth = detector.target(example(("duck", 100, 200, 300, 480))).tensors
    rows = {name: tensor[None] for name, tensor in truth.items()}
    right = {n: t[None] for n, t in outputs((0, 0.5, 50, 140, 150, 280)).items()}
    assert detector.measure(right, rows) == pytest.approx({"map50": 1.0, "map50_95": 1.0})
    # It overlaps by .8: right at seven of ten thresholds, .5 to .8.
    near = {n: t[None] for n, t in outputs((0, 0.5, 50, 140, 150, 252)).items()}
    assert detector.measure(near, rows) == pytest.approx({"map50": 1.0, "map50_95": 0.7})
    wrong = {n: t[None] for n, t in outputs((1, 0.5, 50, 140, 150, 280)).items()}
    assert detector.measure(wrong, rows) == {"map50": 0.0, "map50_95": 0.0}


def test_each_picture_is_measured_and_each_class_told(detector):
    truth = [detector.target(example(("duck", 100, 200, 300, 480))), detector.target(example())]
    rows = {n: np.stack([one.tensors[n] for one in truth]) for n in truth[0].tensors}
    found = [outputs((0, 0.5, 50, 140, 150, 280)), outputs((1, 0.4, 9, 50, 90, 90))]
    answers = {name: np.stack([one[name] for one in found]) for name in found[0]}
    assert detector.measure_each(answers, rows).tolist() == pytest.approx([1.0, 0.6])
    details = detector.details(answers, rows)
    assert details.table["duck"] == {"ap50": 1.0, "ap": pytest.approx(1.0), "boxes": 1.0}
    assert details.table["ball"]["boxes"] == 0.0


def test_where_nothing_is_to_be_found_nothing_is_measured(detector):
    rows = {name: tensor[None] for name, tensor in detector.target(example()).tensors.items()}
    assert detector.measure({n: t[None] for n, t in outputs().items()}, rows) == {}


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("labels", "size", "words"),
    [
        ([], 320, "expected at least one"),
        (["a", "a"], 320, "expected no name twice"),
        (["a", ""], 320, "expected a list of names"),
        (["a"], 300, "image_size is 300, expected a multiple of 32 from 128 to 640 pixels"),
        (["a"], 96, "image_size is 96"),
        (["a"], "320", "image_size is '320'"),
    ],
)
def test_a_wrong_setting_is_told(labels, size, words):
    with pytest.raises(SettingsError, match=words):
        ObjectDetector(labels, size)


@pytest.mark.parametrize("size", [100, 96, 352, "160"])
def test_a_crop_that_is_none_is_told(size):
    words = f"crop_size is {size!r}, expected a multiple of 32 from 128 to image_size .320 pixels"
    with pytest.raises(SettingsError, match=words):
        ObjectDetector(["a"], 320, size)


def test_it_is_rebuilt_from_its_config():
    from fleet_model.bundle import WorkloadSpec

    config = {"labels": ["duck"], "image_size": 256, "crop_size": 192}
    spec = WorkloadSpec(name="object-detector", config=config)
    assert build_workload(spec).config == spec.config
    assert rebuild(spec).task.classes == ("duck",)


def test_samples_are_pictures_that_come_with_the_package(detector):
    first = next(detector.samples(None))
    assert first.encoded.inputs["image"].shape == (320, 320, 3)
    assert first.target is None


# ------------------------------------------------------------------------------------- crops


def test_a_crop_is_five_eighths_of_a_side_where_that_is_enough():
    sides = {size: ObjectDetector(["a"], size).crop_size for size in (128, 160, 192, 256, 320, 416)}
    assert sides == {128: 128, 160: 160, 192: 128, 256: 160, 320: 192, 416: 256}
    assert ObjectDetector(["a"], 160).of_crops is None
    assert ObjectDetector(["a"], 256, 256).of_crops is None
    crops = ObjectDetector(["a"], 256).of_crops
    assert crops.task.inputs["image"].shape == (160, 160, 3)
    assert crops.of_crops is None
    assert crops.share == (160 / 256) ** 2
    assert ObjectDetector(["a"], 256).share == 1.0


def cells(stride, size=256):
    """Return a map whose numbers are the x and y, in pixels, at which each cell begins."""
    at = np.arange(0, size, stride, dtype=np.float32)
    return np.stack(np.meshgrid(at, at), -1)


def test_a_crop_has_the_same_part_of_all_maps_and_boxes_as_they_lie_in_it():
    detector = ObjectDetector(["duck", "ball"], 256)
    boxes = [("duck", 0, 0, 256, 256), ("ball", 0, 0, 20, 20), ("ball", 120, 120, 140, 140)]
    target = detector.target(example(*boxes, raw=frame(width=256, height=256))).tensors
    maps = {"fine": cells(8), "coarse": cells(32)}
    rng, places = np.random.default_rng(0), set()
    for _ in range(200):
        found, moved = detector.crop(maps, target, rng)
        x, y = found["fine"][0, 0]
        places.add((int(x), int(y)))
        np.testing.assert_array_equal(found["fine"], cells(8, 160) + found["fine"][0, 0])
        np.testing.assert_array_equal(found["coarse"], cells(32, 160) + found["fine"][0, 0])
        there = target["class"] != NOTHING
        np.testing.assert_array_equal(moved["class"], target["class"])
        np.testing.assert_array_equal(moved["box"][there], target["box"][there] - [x, y, x, y])
        assert not moved["box"][~there].any()
    assert places == {(x, y) for x in (0, 32, 64, 96) for y in (0, 32, 64, 96)}


def test_crops_with_things_are_drawn_more_often():
    """Three things in the upper left corner: one place of 16 has a weight of 4, the others 1."""
    detector = ObjectDetector(["duck"], 256)
    three = [("duck", x, 4, x + 10, 24) for x in (0, 10, 20)]
    target = detector.target(example(*three, raw=frame(width=256, height=256))).tensors
    rng, maps = np.random.default_rng(0), {"fine": cells(8)}
    drawn = [tuple(detector.crop(maps, target, rng)[0]["fine"][0, 0]) for _ in range(4000)]
    assert drawn.count((0.0, 0.0)) / 4000 == pytest.approx(4 / 19, abs=0.02)
    assert drawn.count((96.0, 32.0)) / 4000 == pytest.approx(1 / 19, abs=0.02)


# ------------------------------------------------------------------------- labels of its own


def answers(*found):
    """Return what a model says of one frame: (class, score, corners in the square) each."""
    outputs = {
        "boxes": np.zeros((ANSWERS, 4), np.float32),
        "scores": np.zeros(ANSWERS, np.float32),
        "classes": np.zeros(ANSWERS, np.int32),
    }
    for place, (kind, score, corners) in enumerate(found):
        outputs["classes"][place], outputs["scores"][place] = kind, score
        outputs["boxes"][place] = corners
    return outputs


LARGE, SMALL, TINY = (10, 10, 110, 110), (200, 200, 230, 230), (5, 5, 6, 6)


def test_a_frame_whose_boxes_are_all_sure_is_a_truth(detector):
    outputs = answers((1, 0.9, SMALL), (0, 0.8, LARGE), (1, 0.9, TINY), (1, 0.14, LARGE))
    found = detector.own_truth(outputs, np.array([0.8, 0.85]))
    assert found.target.tensors["box"][:3].tolist() == [list(b) for b in (LARGE, SMALL, TINY)]
    assert found.target.tensors["class"][:4].tolist() == [0, 1, -3, NOTHING]  # too small to teach
    assert sorted(found.classes.tolist()) == [0, 1, 1]
    assert found.target.weight == 1.0


@pytest.mark.parametrize(
    ("outputs", "least"),
    [
        (answers((0, 0.9, LARGE), (1, 0.5, SMALL)), [0.8, 0.8]),  # the second is neither nor
        (answers((0, 0.9, LARGE), (1, 0.15, SMALL)), [0.8, 0.8]),
        (answers((0, 0.9, LARGE), (1, 0.99, SMALL)), [0.8, np.inf]),  # never sure of the other
        (answers((0, 0.14, LARGE)), [0.1, 0.1]),  # nothing is no truth
        (answers((0, 0.9, (10, 10, 10, 50))), [0.8, 0.8]),  # no box
    ],
)
def test_a_frame_with_a_box_that_is_not_sure_or_without_one_is_none(detector, outputs, least):
    assert detector.own_truth(outputs, np.array(least)) is None


def test_boxes_are_judged_as_average_precision_judges_them(detector):
    truth = detector.target(example(("duck", 20, 20, 220, 220)))
    there = truth.tensors["box"][0]
    outputs = answers(
        (0, 0.9, there), (0, 0.8, there), (1, 0.7, there), (0, 0.1, (200, 200, 300, 300))
    )
    batch = {name: tensor[None] for name, tensor in outputs.items()}
    targets = {name: tensor[None] for name, tensor in truth.tensors.items()}
    told = detector.certainty(batch, targets)
    rows = sorted(
        zip(told.scores.tolist(), told.classes.tolist(), told.right.tolist(), strict=True)
    )
    assert [(kind, right) for _, kind, right in rows] == [(1, False), (0, False), (0, True)]


def test_its_own_truth_is_that_of_a_person_who_draws_the_same_boxes(detector):
    drawn = detector.target(example(("duck", 20, 20, 220, 220), ("ball", 300, 100, 350, 150)))
    there = drawn.tensors["box"]
    found = detector.own_truth(
        answers((1, 0.9, there[1]), (0, 0.9, there[0])), np.array([0.5, 0.5])
    )
    for name, tensor in drawn.tensors.items():
        np.testing.assert_array_equal(found.target.tensors[name], tensor)
