import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Example, Frame
from fleet_model.workload import rebuild
from fleet_model.workloads.image_classifier import ImageClassifier

pytestmark = pytest.mark.base

LABELS = ["circle", "square", "star"]


def frame(image):
    return Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: image)


def encode(image, size=32):
    return ImageClassifier(LABELS, image_size=size).encode(frame(image)).inputs["image"]


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (33, 700), (20, 10), (32, 32)])
def test_any_picture_becomes_one_square_of_float32(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)

    encoded = encode(image)

    assert encoded.shape == (32, 32, 3)
    assert encoded.dtype == np.float32
    assert 0 <= encoded.min() <= encoded.max() <= 255


def test_the_channels_stay_red_green_blue():
    image = np.zeros((100, 160, 3), np.uint8)
    image[..., 0], image[..., 2] = 200, 50

    assert encode(image)[16, 16].tolist() == [200, 0, 50]


def test_a_picture_of_the_right_size_is_not_changed():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)

    np.testing.assert_array_equal(encode(image), image)


def test_a_frame_that_cannot_be_decoded_says_so():
    def decode():
        raise FrameError("broken")

    broken = Frame(source="s", topic="t", stamp_ns=0, data=b"", format="jpeg", decode=decode)

    with pytest.raises(FrameError, match="broken"):
        ImageClassifier(LABELS).encode(broken)


def test_the_config_rebuilds_the_workload():
    workload = ImageClassifier(LABELS, "mobilenet-v2-035")

    twin = rebuild(WorkloadSpec(name="image-classifier", config=dict(workload.config)))

    assert twin.config == workload.config
    assert twin.config == {"labels": LABELS, "backbone": "mobilenet-v2-035", "image_size": 96}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "circle"}, "expected a list of names"),
        ({"labels": ["a", 3]}, "expected a list of names"),
        ({"labels": ["a", ""]}, "expected a list of names"),
        ({"labels": ["a"]}, "at least two"),
        ({"labels": ["a", "a"]}, "no name twice"),
        ({"labels": LABELS, "backbone": "resnet"}, "choose efficientnet-lite0, mobilenet-v2-035"),
        ({"labels": LABELS, "image_size": 16}, "expected 32 to 1024"),
        ({"labels": LABELS, "image_size": "96"}, "expected 32 to 1024"),
        ({"labels": LABELS, "image_size": 10**9}, "expected 32 to 1024"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_expected(arguments, message):
    with pytest.raises(SettingsError, match=message):
        ImageClassifier(**arguments)


def test_an_unknown_label_is_refused_with_the_known_ones():
    workload = ImageClassifier(LABELS)

    targets = [workload.target(Example(raw=None, key="", label=label)) for label in LABELS]
    assert [int(target.tensors["class"]) for target in targets] == [0, 1, 2]
    assert {target.weight for target in targets} == {1.0}
    for label in ("hexagon", None):
        with pytest.raises(FrameError, match="knows circle, square, star"):
            workload.target(Example(raw=None, key="", label=label))


def test_metrics_are_what_the_formulas_say():
    outputs = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], np.float32))
    targets = np.array([0, 1, 0])

    metrics = ImageClassifier(LABELS).measure(
        {"logits": outputs + 3.0},
        {"class": targets},  # a shift changes nothing
    )

    assert metrics.keys() == ImageClassifier(LABELS).task.measures.keys()
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["loss"] == pytest.approx(-np.log([0.5, 0.8, 0.2]).mean(), rel=1e-6)


@given(arrays(np.float32, 3, elements=st.floats(-1e4, 1e4, width=32)))
def test_decoded_scores_are_probabilities_best_first(logits):
    predictions = ImageClassifier(LABELS).decode({"logits": logits}, None)

    scores = [p.score for p in predictions]
    assert sorted(p.label for p in predictions) == LABELS
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1.0)
    assert predictions[0].label == LABELS[int(np.argmax(logits))]


def test_a_robot_that_predicts_needs_no_keras(monkeypatch):
    for name in ("keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails now

    workload = ImageClassifier(LABELS)
    workload.encode(frame(np.zeros((10, 10, 3), np.uint8)))
    workload.decode({"logits": np.zeros(3, np.float32)}, None)
    workload.measure({"logits": np.zeros((1, 3), np.float32)}, {"class": np.zeros(1, np.int64)})


def test_the_best_class_is_its_own_truth_if_it_is_sure_enough():
    workload = ImageClassifier(["a", "b", "c"])
    outputs = {"logits": np.log(np.array([0.2, 0.7, 0.1], np.float32))}
    found = workload.own_truth(outputs, np.array([0.0, 0.69, 0.0]))
    assert found.target.tensors == {"class": np.array(1)}
    assert found.target.tensors["class"].dtype == np.int32
    assert found.classes.tolist() == [1]
    assert workload.own_truth(outputs, np.array([0.0, 0.71, 0.0])) is None
    assert workload.own_truth(outputs, np.array([0.0, np.inf, 0.0])) is None


def test_its_answers_are_judged_with_their_probability():
    workload = ImageClassifier(["a", "b"])
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6]], np.float32))
    told = workload.certainty({"logits": logits}, {"class": np.array([0, 0])})
    assert told.classes.tolist() == [0, 1]
    np.testing.assert_allclose(told.scores, [0.9, 0.6], rtol=1e-6)
    assert told.right.tolist() == [True, False]
