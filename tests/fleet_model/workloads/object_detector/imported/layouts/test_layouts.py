"""Each layout by values that were worked out by hand."""

import numpy as np
import pytest

from fleet_model.errors import SettingsError
from fleet_model.workloads.object_detector.imported.layouts import LAYOUTS, layout_of
from fleet_model.workloads.object_detector.imported.layouts.yolo import cells
from fleet_model.workloads.object_detector.imported.reading import read_reading

pytestmark = pytest.mark.base


def reading(width=64, height=64, **about):
    fields = {
        "layout": "yolox", "width": width, "height": height, "image": "images",
        "channels_first": True, "outputs": {}, "classes": [0, 1, 2],
    }  # fmt: skip
    return read_reading({**fields, **about})


def best(found):
    """Return the surest: its box, its score, its class."""
    index = int(np.argmax(found.scores))
    return found.boxes[index].tolist(), float(found.scores[index]), int(found.classes[index])


def read(name, outputs, **about):
    return layout_of(name).read(outputs, reading(layout=name, **about))


# ------------------------------------------------------------------------------------------ YOLO


def test_yolox_cells_are_numbered_by_rows_of_the_fine_map_first():
    """64 x 32: maps of 8 x 4, 4 x 2 and 2 x 1 cells."""
    assert cells((64, 32)) == 32 + 8 + 2
    rows = np.zeros((42, 7), np.float32)
    rows[0] = (0.5, 0.25, 0, np.log(2), 0.5, 0.2, 0.5)  # stride 8, column 0, row 0
    box, score, kind = best(read("yolox", {"rows": rows}, width=64, height=32))
    assert box == pytest.approx([0, -6, 8, 10])  # middle 4, 2; sides 8, 16
    assert (score, kind) == (pytest.approx(0.25), 1)
    rows[:] = 0
    rows[32 + 6] = (0.5, 0.5, np.log(2), 0, 1, 0.9, 0)  # stride 16, column 2, row 1
    box, score, kind = best(read("yolox", {"rows": rows}, width=64, height=32))
    assert box == pytest.approx([24, 16, 56, 32])  # middle 40, 24; sides 32, 16
    assert (score, kind) == (pytest.approx(0.9), 0)
    rows[:] = 0
    rows[41] = (0, 1, 0, 0, 1, 0, 1)  # stride 32, column 1, row 0
    box, _, kind = best(read("yolox", {"rows": rows}, width=64, height=32))
    assert box == pytest.approx([16, 16, 48, 48])
    assert kind == 1


def test_a_yolox_box_without_end_is_no_error():
    rows = np.zeros((84, 6), np.float32)
    rows[0] = (0, 0, 1000, 0, 1, 1)
    box, _, _ = best(read("yolox", {"rows": rows}))
    assert box[2] == np.inf


def test_decoded_rows_have_middles_and_sides_in_pixels_or_shares():
    rows = np.array([[10, 20, 4, 8, 0.5, 0.25, 0.75]])
    for name in ("yolox-decoded", "yolov5"):
        found = best(read(name, {"rows": rows}))
        assert found == (pytest.approx([8, 16, 12, 24]), pytest.approx(0.375), 1)
    rows = np.array([[0.5, 0.5, 0.25, 0.5, 1, 1, 0]])
    box, _, _ = best(read("yolov5", {"rows": rows}, shares=True, height=128))
    assert box == pytest.approx([24, 32, 40, 96])


def test_yolov8_has_columns_and_no_score_of_a_thing():
    columns = np.array([[10.0, 0], [20, 0], [4, 0], [8, 0], [0.1, 0], [0.6, 0]])
    found = best(read("yolov8", {"rows": columns}))
    assert found == (pytest.approx([8, 16, 12, 24]), pytest.approx(0.6), 1)


# ------------------------------------------------------------------------------------------ DETR


def test_queries_have_shares_and_a_sigmoid_for_each_class():
    outputs = {
        "boxes": np.array([[0.5, 0.25, 0.25, 0.5], [0.5, 0.5, 1, 1]]),
        "logits": np.array([[np.log(3), -50, -50], [-50, -50, 0.0]]),
    }
    for name in ("rf-detr", "d-fine-logits"):
        found = read(name, outputs, shares=True)
        assert best(found) == (pytest.approx([24, 0, 40, 32]), pytest.approx(0.75), 0)
        assert found.scores[1] == pytest.approx(0.5)
        assert found.classes[1] == 2
        assert found.boxes[1].tolist() == [0, 0, 64, 64]


def test_a_query_may_be_two_things():
    outputs = {"boxes": np.array([[0.5, 0.5, 0.5, 0.5]]), "logits": np.array([[1.0, 0.5]])}
    found = read("rf-detr", outputs, shares=True)
    assert found.classes.tolist() == [0, 1]
    assert (found.boxes[0] == found.boxes[1]).all()


def test_detr_has_a_softmax_whose_last_class_is_nothing():
    outputs = {
        "boxes": np.array([[0.5, 0.5, 0.5, 0.5]]),
        "logits": np.log(np.array([[0.2, 0.3, 0.5]])) + 1000,
    }
    found = read("detr", outputs, shares=True)
    assert found.scores.tolist() == pytest.approx([0.3, 0.2])
    assert found.classes.tolist() == [1, 0]
    assert layout_of("detr").columns({"logits": np.zeros((1, 1, 3))}) == 2


# ---------------------------------------------------------------------------------------- listed


def test_tflite_gives_y_before_x_and_says_how_many():
    outputs = {
        "boxes": np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]),
        "classes": np.array([2.0, 0]),
        "scores": np.array([0.5, 0.9]),
        "count": np.array([1.0]),
    }
    found = read("tflite-postprocess", outputs, shares=True, width=100, height=40)
    assert found.boxes.tolist() == [[50, 10, 100, 30]]
    assert (found.classes.tolist(), found.scores.tolist()) == ([2], [0.5])


@pytest.mark.parametrize("count", [-3.0, 99.0])
def test_a_count_of_more_than_there_are_is_all_of_them(count):
    outputs = {
        "boxes": np.zeros((2, 4)), "classes": np.zeros(2), "scores": np.ones(2),
        "count": np.array([count]),
    }  # fmt: skip
    found = read("tflite-postprocess", outputs, shares=True)
    assert len(found.scores) == (0 if count < 0 else 2)


def test_a_deployed_d_fine_gives_corners_in_pixels():
    outputs = {
        "boxes": np.array([[1.0, 2, 3, 4]]),
        "classes": np.array([1]),
        "scores": np.array([0.8]),
    }
    assert best(read("d-fine", outputs)) == ([1, 2, 3, 4], pytest.approx(0.8), 1)


def test_plain_boxes_have_their_best_class():
    outputs = {"boxes": np.array([[0.0, 0, 0.5, 1]]), "scores": np.array([[0.1, 0.7]])}
    found = best(read("boxes-scores", outputs, shares=True))
    assert found == ([0, 0, 32, 64], pytest.approx(0.7), 1)


# ------------------------------------------------------------------------------------- detection


def shaped(**shapes):
    return {name.replace("__", ":"): np.zeros(shape) for name, shape in shapes.items()}


def fitting(outputs, size=(64, 64)):
    """Return the layouts whose shapes these are, and those whose names say so."""
    fits = {name: layout_of(name).roles(outputs, size) for name in LAYOUTS}
    fits = {name: roles for name, roles in fits.items() if roles is not None}
    return set(fits), {name for name, roles in fits.items() if layout_of(name).is_sure(roles)}


LOGITS = {"rf-detr", "d-fine-logits", "detr", "boxes-scores"}


@pytest.mark.parametrize(
    ("outputs", "fits", "sure"),
    [
        (shaped(output=(1, 84, 85)), {"yolox", "yolox-decoded"}, {"yolox"}),
        (shaped(output=(1, 252, 85)), {"yolov5"}, {"yolov5"}),
        (shaped(output0=(1, 84, 84)), {"yolox", "yolox-decoded", "yolov8"}, {"yolox", "yolov8"}),
        (shaped(output0=(1, 6, 84)), {"yolov8"}, {"yolov8"}),
        (shaped(dets=(1, 300, 4), labels=(1, 300, 91)), LOGITS, {"rf-detr"}),
        (shaped(pred_boxes=(1, 300, 4), logits=(1, 300, 80)), LOGITS, set()),
        (shaped(boxes=(1, 300, 4), scores=(1, 300, 4)), LOGITS, {"boxes-scores"}),
        (shaped(a=(1, 300, 4), b=(1, 300, 4)), set(), set()),  # which are the boxes?
        (shaped(output=(1, 1000)), set(), set()),
        (shaped(output=(1, 84, 5)), set(), set()),  # no class
    ],
)
def test_shapes_and_names_tell_what_a_file_is(outputs, fits, sure):
    assert fitting(outputs) == (fits, sure)


@pytest.mark.parametrize(
    ("names", "classes", "scores"),
    [
        (("TFLite_Detection_PostProcess", "{}:1", "{}:2", "{}:3"), 1, 2),  # boxes come first
        (("StatefulPartitionedCall:3", "{}:2", "{}:1", "{}:0"), 1, 2),  # the count does
        (("output_3", "output_2", "output_1", "output_0"), 1, 2),
        (("detection_boxes", "detection_scores", "detection_classes", "num"), 2, 1),
    ],
)
def test_the_four_outputs_of_tflite_are_told_apart(names, classes, scores):
    stem = names[0].partition(":")[0]
    boxes, first, second, count = (name.format(stem) for name in names)
    outputs = {
        second: np.zeros((1, 10)), boxes: np.zeros((1, 10, 4)), count: np.zeros(1),
        first: np.zeros((1, 10)),
    }  # fmt: skip
    named = [boxes, first, second, count]
    roles = layout_of("tflite-postprocess").roles(outputs, (320, 320))
    assert roles == {
        "boxes": boxes, "classes": named[classes], "scores": named[scores], "count": count,
    }  # fmt: skip


def test_labels_of_a_deployed_d_fine_are_whole_numbers_or_named():
    outputs = {
        "a": np.zeros((1, 300), np.int64),
        "boxes": np.zeros((1, 300, 4)),
        "b": np.zeros((1, 300)),
    }
    assert fitting(outputs) == ({"d-fine"}, {"d-fine"})
    named = {"labels": outputs["b"], "boxes": outputs["boxes"], "scores": outputs["b"]}
    roles = layout_of("d-fine").roles(named, (640, 640))
    assert roles == {"boxes": "boxes", "classes": "labels", "scores": "scores"}


def test_a_name_from_a_manifest_imports_no_module():
    for name in ("nonsense", "os:system", "fleet_model.engine:TFLiteEngine"):
        with pytest.raises(SettingsError, match="there is no layout"):
            layout_of(name)
