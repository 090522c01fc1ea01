"""A round with unlabelled examples, with the classifier's own class."""

import numpy as np
import pytest

from edge_agent.training.feature_cache import FeatureCache
from edge_agent.training.pseudo_labels.own_truths import with_own_truths
from edge_agent.training.rows import Rows
from edge_agent.training.trainer import Learner, evaluate, fit
from fleet_model.bundle import TensorSpec, TrainerSpec, WorkloadSpec
from fleet_model.types import Checkpoint, Encoded, Example, PseudoLabel, Target, TrainConfig
from fleet_model.workloads.image_classifier.classifier import ImageClassifier
from fleet_model.workloads.object_detector import ObjectDetector

pytestmark = pytest.mark.base

LABELS = ["cup", "fork"]
RULE = PseudoLabel(weight=0.5, precision=0.95)
ROUND = TrainConfig(epochs=1, learning_rate=0.1)


class Numbers(ImageClassifier):
    """The classifier, on raw inputs that are its one feature."""

    def encode(self, raw):
        return Encoded(inputs={"image": np.full((32, 32, 3), raw, np.float32)})


class Slope:
    """`Differentiable`: logits = (x, -x) * scale, so 2 x scale decides how sure."""

    def __init__(self):
        self.seen = []

    def features(self, inputs):
        return {"x": inputs["image"][0, 0, :1]}

    def gradient(self, weights, features, targets, sample_weight):
        rows = sample_weight > 0
        self.seen += zip(
            features["x"][rows, 0].tolist(),
            targets["class"][rows].tolist(),
            sample_weight[rows].tolist(),
            strict=True,
        )
        return 1.0, {"scale": np.zeros(1, np.float32)}

    def outputs(self, weights, features):
        x = features["x"][:, 0] * weights["scale"]
        return {"logits": np.stack([x, -x], 1)}


def learner(workload=None):
    spec = TrainerSpec(
        workload=WorkloadSpec(name="numbers", config={}),
        trainable="head",
        tensors={"scale": TensorSpec(shape=(1,))},
        batch_size=4,
        files={},
        parts={},
    )
    workload = workload or Numbers(LABELS, image_size=32)
    return Learner(spec, workload, Slope(), FeatureCache())


def checkpoint(scale=1.0):
    return Checkpoint(version=1, weights={"scale": np.array([scale], np.float32)})


def known(held_out=20):
    """Held-out cups are right from 1 on and mixed below; of forks there are too few."""
    yield Example(raw=3.0, label="cup", key="train")
    for number in range(held_out):
        x = 2.0 - 0.05 * number
        yield Example(raw=x, label="cup", key=f"cup{number:02}", held_out=True)
    for number in range(held_out // 2):
        yield Example(raw=0.5, label="fork", key=f"mixed{number:02}", held_out=True)
    yield Example(raw=-3.0, label="fork", key="fork", held_out=True)


def unknown(*values):
    return [Example(raw=float(x), key=f"unknown{x}", seen=False, pseudo=RULE) for x in values]


def test_only_what_is_surely_right_is_trained_on_with_its_weight():
    one = learner()
    update = fit(one, checkpoint(), [*known(), *unknown(1.5, 0.7, -2.5)], ROUND)
    assert sorted(one.model.seen) == [(1.5, 0, 0.5), (3.0, 0, 1.0)]
    lowest = 1 / (1 + np.exp(-2 * 1.05))  # the least sure cup; the forks of 0.5 are taken for cups
    told = {k: v for k, v in update.metrics.items() if k.startswith("pseudo_")}
    assert told == {
        "pseudo_unlabelled": 3.0,
        "pseudo_examples": 1.0,
        "pseudo_weight": 0.5,
        "pseudo_least_0": pytest.approx(lowest),
        "pseudo_count_0": 1.0,
    }


def test_a_class_weighs_no_more_than_what_was_labelled_of_it():
    one = learner()
    update = fit(one, checkpoint(), [*known(), *unknown(1.5, 1.625, 1.75, 1.875)], ROUND)
    assert sorted(one.model.seen) == [
        *((x, 0, 0.25) for x in (1.5, 1.625, 1.75, 1.875)),
        (3.0, 0, 1.0),
    ]
    assert update.metrics["pseudo_weight"] == 0.25
    assert update.num_examples == 2
    other = learner()
    labelled = [example for example in known() if example.key != "train"]
    labelled.append(Example(raw=-3.0, label="fork", key="other"))
    update = fit(other, checkpoint(), [*labelled, *unknown(1.5)], ROUND)
    assert update.metrics["pseudo_examples"] == 0  # nobody has labelled a cup to learn from


def test_a_teacher_s_examples_are_none_that_people_labelled():
    one = learner()
    labelled = [example for example in known() if example.key != "train"]
    labelled.append(Example(raw=-3.0, label="fork", key="other"))
    labelled.append(Example(raw=3.0, label="cup", key="taught", taught=0.5))
    update = fit(one, checkpoint(), [*labelled, *unknown(1.5)], ROUND)
    assert update.metrics["taught_examples"] == 1
    assert update.metrics["pseudo_examples"] == 0


def test_nothing_is_measured_with_them():
    with_them = fit(learner(), checkpoint(), [*known(), *unknown(1.5, -9)], ROUND)
    without = fit(learner(), checkpoint(), known(), ROUND)
    for name in ("held_out", "accuracy_before", "loss_before", "unreadable"):
        assert with_them.metrics[name] == without.metrics[name]
    measured = evaluate(learner(), checkpoint(), [*known(), *unknown(1.5)])
    assert measured.num_examples == 31


def test_a_model_that_is_not_sure_any_more_takes_its_labels_back():
    one = learner()
    fit(one, checkpoint(), [*known(), *unknown(1.5)], ROUND)
    one.model.seen.clear()
    update = fit(one, checkpoint(-1.0), [*known(), *unknown(1.5)], ROUND)  # now cups are forks
    assert [row[0] for row in one.model.seen] == [3.0]
    assert update.metrics["pseudo_examples"] == 0


def test_without_held_out_examples_there_are_none(caplog):
    update = fit(learner(), checkpoint(), [*known(0), *unknown(1.5)][:1] + unknown(1.5), ROUND)
    assert not [name for name in update.metrics if name.startswith("pseudo_")]
    assert "nothing is held out" in caplog.text


def test_a_workload_that_cannot_judge_itself_never_sees_them():
    class Without:
        def __init__(self):
            self._own = Numbers(LABELS, image_size=32)
            self.task, self.class_bias = self._own.task, None
            self.encode, self.target = self._own.encode, self._own.target
            self.measure = self._own.measure

    one = learner(Without())
    update = fit(one, checkpoint(), [*known(), *unknown(1.5)], ROUND)
    assert [row[0] for row in one.model.seen] == [3.0]
    assert update.metrics["unreadable"] == 0


def test_one_that_cannot_be_read_is_left_out():
    class Damaged(Numbers):
        def encode(self, raw):
            from fleet_model.errors import FrameError

            if raw == 1.51:
                raise FrameError("it is damaged")
            return super().encode(raw)

    one = learner(Damaged(LABELS, image_size=32))
    update = fit(one, checkpoint(), [*known(), *unknown(1.51, 1.6)], ROUND)
    assert update.metrics["unreadable"] == 1
    assert update.metrics["pseudo_examples"] == 1


def test_boxes_weigh_what_the_rule_says_however_many_there_are():
    detector = ObjectDetector(["duck"], 128)
    box = np.array([10, 10, 40, 40], np.float32)

    def answers(rows):
        boxes = np.zeros((len(rows), 100, 4), np.float32)
        scores = np.zeros((len(rows), 100), np.float32)
        boxes[:, 0], scores[:, 0] = box, 0.9
        return {"boxes": boxes, "scores": scores, "classes": np.zeros((len(rows), 100), np.int32)}

    targets = {"box": np.zeros((100, 4), np.float32), "class": np.full(100, -1, np.int32)}
    targets["box"][0], targets["class"][0] = box, 0
    one = Target(tensors=targets)
    known = Rows([{}], [one], ["a"]), Rows([{}] * 10, [one] * 10, list("bcdefghijk"))
    unknown = Rows([{}] * 9, [Target(tensors={}, weight=0.5)] * 9, [f"u{i}" for i in range(9)])
    training, told = with_own_truths(detector, answers, known, unknown, RULE)
    assert [target.weight for target in training.targets] == [1.0, *[0.5] * 9]
    assert told["pseudo_examples"] == 9
