"""The parts of benchmarks/active_labels.py that can be wrong without anyone noticing."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import active_labels
from benchmarks.active_labels import SHARES, Fresh, Order, curve, figures_of
from benchmarks.camera_fleet import Robot
from fleet_model.signatures import FEATURES
from fleet_model.types import Checkpoint, Encoded, Example, Frame, Update
from fleet_model.workloads.image_classifier import ImageClassifier

S = 10**9


class Flat(ImageClassifier):
    """Its input is the number of the frame, and so is its only feature."""

    def encode(self, raw):
        return Encoded(inputs={"number": np.array([raw.stamp_ns / S], np.float32)})


def robot(name, frames):
    def example(number):
        picture = np.full((8, 8, 3), number, np.uint8)
        raw = Frame(
            source=name, topic="/c", stamp_ns=number * S, data=b"", format="rgb8",
            decode=lambda: picture, reduced=lambda at_least: picture,
        )  # fmt: skip
        return Example(raw=raw, key=f"{name}/{number}", label="a", held_out=number % 5 == 4)

    return Robot(name, tuple(map(example, range(frames))), SimpleNamespace())


def order_of(one):
    return Order(one, Flat(["a", "b"]), lambda inputs: {FEATURES: inputs["number"]})


def head(kernel, bias=0.0):
    return {"head/kernel": np.array([[kernel, -kernel]]), "head/bias": np.array([bias, -bias])}


def test_frames_are_taken_that_the_model_of_the_moment_is_unsure_of():
    take = order_of(robot("r1", 100)).by_model()
    first = take(head(1.0, -50.0), 1)  # logits are equal at 50
    assert first[0].key == "r1/50"
    (second,) = take(head(1.0, -80.0), 1)
    assert second.key == "r1/80"
    assert len(take(head(1.0), 1000)) == 78  # the others but for those held out


def test_a_random_order_has_every_frame_once():
    order = order_of(robot("r1", 50))
    take = order.at_random(1)
    keys = [e.key for e in [*take({}, 3), *take({}, 0), *take({}, 100)]]
    assert sorted(keys) == sorted(e.key for e in order.examples)
    assert keys != [e.key for e in order.examples]
    again = [e.key for e in order.at_random(1)({}, 100)]
    assert again == keys


def test_batches_of_three_are_labelled_and_trained_on_until_a_share_is_reached(monkeypatch):
    robots = [robot("r1", 100), robot("r2", 50)]  # 80 and 40 to train on
    seen = []

    def fit(one, start, config, shuffle):
        seen.append((one.name, len(one.examples), start.version))
        weights = {"w": np.ones(1, np.float32)}
        return Update(
            robot="", base_version=start.version, weights=weights, num_examples=1, num_steps=1
        )

    monkeypatch.setattr(active_labels, "fit", fit)
    fleet = SimpleNamespace(
        robots=robots, config=None, first=Checkpoint(version=0, weights={"w": np.zeros(1)}),
        accuracy=lambda weights: float(weights["w"][0]),
    )  # fmt: skip
    orders = list(map(order_of, robots))
    scores = curve(Fresh(fleet, orders), [order.at_random(0) for order in orders], shuffle=1)
    # 2 %: two and one in one batch; 5 %: four and two in a second; 10 %: eight and four in two
    # more, since the first robot needs four; 20 %: sixteen and eight in three more.
    assert scores == {2: 1 + 5, 5: 2 + 5, 10: 4 + 5, 20: 7 + 5}
    assert [n for name, n, _ in seen if name == "r1"][:14] == [2] * 6 + [4] * 6 + [7, 8]
    assert tuple(scores) == SHARES


def test_the_gain_is_that_of_few_by_uncertainty_over_many_at_random():
    curves = {
        1: ({2: 0.5, 5: 0.8, 10: 0.9, 20: 0.9}, {2: 0.5, 5: 0.6, 10: 0.7, 20: 0.8}),
        2: ({2: 0.5, 5: 0.6, 10: 0.9, 20: 0.9}, {2: 0.5, 5: 0.6, 10: 0.8, 20: 0.8}),
    }
    told = figures_of(curves)
    assert told["active_gain"] == pytest.approx((0.1 - 0.2) / 2)
    assert told["active_gain_seed_1"] == pytest.approx(0.1)
    assert told["active_gain_seed_2"] == pytest.approx(-0.2)
    assert told["active_accuracy_5"] == pytest.approx(0.7)
    assert told["random_accuracy_10"] == pytest.approx(0.75)
