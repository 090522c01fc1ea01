"""A frame on its way into the file of another tool, and boxes on their way back."""

import numpy as np
import pytest

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Box, Example, Frame
from fleet_model.workload import rebuild
from fleet_model.workloads.object_detector import ObjectDetector
from fleet_model.workloads.object_detector.detector import NOTHING
from fleet_model.workloads.object_detector.imported import ImportedDetector
from fleet_model.workloads.object_detector.imported.fitted import Fitted
from fleet_model.workloads.object_detector.imported.reading import read_reading
from fleet_model.workloads.object_detector.imported.stage import as_input

pytestmark = pytest.mark.base

READING = {
    "layout": "yolox", "width": 128, "height": 64, "image": "images", "channels_first": True,
    "outputs": {"rows": "output"}, "classes": [1, -1, 0],
}  # fmt: skip


def workload(**about):
    return ImportedDetector(["duck", "ball"], 320, {**READING, **about})


def frame(width=640, height=480, color=(200, 100, 50)):
    picture = np.full((height, width, 3), color, np.uint8)
    return Frame(
        source="bag", topic="/camera", stamp_ns=1, data=b"", format="rgb8", decode=lambda: picture
    )


# ----------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("fit", "fitted"),
    [
        ("letterbox", Fitted(2 / 15, 2 / 15, 21, 0, 640, 480)),  # 85 of 128 pixels wide
        ("corner", Fitted(2 / 15, 2 / 15, 0, 0, 640, 480)),
        ("stretch", Fitted(0.2, 2 / 15, 0, 0, 640, 480)),
    ],
)
def test_a_frame_lies_where_the_layout_has_it(fit, fitted):
    encoded = workload(fit=fit).encode(frame())
    assert encoded.context == fitted
    image = encoded.inputs["image"]
    assert image.shape == (64, 128, 3)
    inner = 128 if fit == "stretch" else 85
    assert (image[:, fitted.left : fitted.left + inner] == (200, 100, 50)).all()
    assert (image[:, fitted.left + inner :] == 114).all()
    boxes = np.array([[0, 0, 640, 480], [100.0, 200, 300, 400]])
    assert fitted.outside(fitted.inside(boxes)) == pytest.approx(boxes)
    assert fitted.outside(np.array([[-9.0, -9, 999, 999]])).tolist() == [[0, 0, 640, 480]]


def test_pixels_are_given_as_the_file_takes_them():
    picture = np.zeros((64, 128, 3), np.float32)
    picture[3, 5] = 10, 20, 30
    given = as_input(picture, read_reading(READING))["images"]
    assert (given.shape, given.dtype) == ((1, 3, 64, 128), np.float32)
    assert given[0, :, 3, 5].tolist() == [10, 20, 30]
    given = as_input(picture, read_reading({**READING, "color": "bgr", "channels_first": False}))
    assert given["images"][0, 3, 5].tolist() == [30, 20, 10]
    about = {"mean": (10, 10, 10), "std": (1, 10, 20)}
    given = as_input(picture, read_reading({**READING, **about}))["images"]
    assert given[0, :, 3, 5].tolist() == [0, 1, 1]


def test_quantized_inputs_get_their_own_numbers():
    picture = np.full((64, 128, 3), 255.0, np.float32)
    int8 = {"dtype": "int8", "scale": 1 / 255, "zero": -128, "std": (255, 255, 255)}
    given = as_input(picture, read_reading({**READING, **int8}))["images"]
    assert (given.dtype, given.max(), given.min()) == (np.int8, 127, 127)
    given = as_input(picture, read_reading({**READING, "dtype": "uint8"}))["images"]
    assert (given.dtype, given.max()) == (np.uint8, 255)


def test_a_file_that_asks_is_told_its_own_size():
    given = as_input(np.zeros((64, 128, 3)), read_reading({**READING, "size_input": "sizes"}))
    assert given["sizes"].tolist() == [[128, 64]]
    assert given["sizes"].dtype == np.int64


# ------------------------------------------------------------------------------------------ truth


def test_the_truth_lies_in_the_files_own_input():
    box = Box(label="ball", x0=0, y0=0, x1=320, y1=240)
    example = Example(raw=frame(), key="k", boxes=(box,))
    target = workload(fit="stretch").target(example).tensors
    assert target["box"][0] == pytest.approx([0, 0, 64, 32], abs=1e-4)
    assert target["class"][0] == 1
    assert (target["class"][1:] == NOTHING).all()
    assert (target["box"][1:] == 0).all()


def test_what_is_too_small_to_count_is_what_the_fleet_says():
    """3 pixels of 640 are 1.5 of the fleet's square, whatever the file's input is."""
    box = Box(label="duck", x0=10, y0=10, x1=13, y1=200)
    example = Example(raw=frame(), key="k", boxes=(box,))
    own = ObjectDetector(["duck", "ball"], 320).target(example).tensors["class"]
    large = workload(width=1280, height=1280).target(example).tensors["class"]
    assert own.tolist() == large.tolist()
    assert own[0] < NOTHING


def test_a_perfect_answer_measures_one_in_any_input():
    box = Box(label="ball", x0=100, y0=50, x1=300, y1=400)
    example = Example(raw=frame(), key="k", boxes=(box,))
    for fit in ("letterbox", "corner", "stretch"):
        detector = workload(fit=fit)
        target = detector.target(example).tensors
        outputs = {
            "boxes": target["box"][None], "classes": np.maximum(target["class"], 0)[None],
            "scores": (target["class"] >= 0).astype(np.float32)[None],
        }  # fmt: skip
        targets = {name: tensor[None] for name, tensor in target.items()}
        assert detector.measure(outputs, targets)["map50"] == 1.0
        assert detector.measure_each(outputs, targets).tolist() == [1.0]
        context = detector.encode(example.raw).context
        found = detector.decode({name: one[0] for name, one in outputs.items()}, context)
        assert [one.label for one in found] == ["ball"]
        assert found[0].box == pytest.approx((100, 50, 300, 400), abs=1e-3)


def test_a_label_of_nobody_is_refused_as_ever():
    example = Example(raw=frame(), key="k", boxes=(Box(label="cup", x0=0, y0=0, x1=9, y1=9),))
    with pytest.raises(FrameError, match="unknown label 'cup'"):
        workload().target(example)


# ----------------------------------------------------------------------------------------- config


def test_a_manifest_rebuilds_it():
    made = workload(mean=(1.5, 2, 3), shares=True)
    again = rebuild(WorkloadSpec(name="imported-detector", config=dict(made.config)))
    assert again.config == made.config
    assert again.task == made.task
    assert made.task.inputs["image"].shape == (64, 128, 3)
    assert made.task.outputs == ObjectDetector(["duck", "ball"], 320).task.outputs


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"height": 100_000}, {"std": (1, 0, 1)}, {"mean": (np.nan, 0, 0)},
        {"classes": []}, {"classes": [2]}, {"fit": "crop"}, {"strange": 1}, {"overlap": 0},
    ],
)  # fmt: skip
def test_a_manifest_that_says_what_cannot_be_is_refused(wrong):
    with pytest.raises(SettingsError, match="reading"):
        workload(**wrong)
    config = {"labels": ["duck", "ball"], "image_size": 320, "reading": {**READING, **wrong}}
    with pytest.raises(BundleError, match="cannot be rebuilt"):
        rebuild(WorkloadSpec(name="imported-detector", config=config))
