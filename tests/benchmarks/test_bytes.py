"""The parts of benchmarks/bytes.py that can be wrong without anyone noticing."""

import numpy as np
import pytest

from benchmarks import block_fleet
from benchmarks.bytes import ARMS, HEAD, SEEDS, block_figures, result
from benchmarks.bytes_on_wire import ROUNDS, Size, learn, rounds, size_of
from fleet_model.types import Checkpoint, Example, Update
from fleet_model.weights import size_bytes

MODEL = {"head/kernel": np.zeros((1280, 4), np.float32), "head/bias": np.zeros(4, np.float32)}


def drift(number, start):
    """Train one virtual robot: a step of its own, the same in each round."""
    random = np.random.default_rng(number)
    weights = {n: random.normal(size=w.shape).astype(np.float32) for n, w in start.weights.items()}
    return Update(
        robot="", base_version=start.version, weights=weights, num_examples=9, num_steps=1
    )


def mean_of(robots):
    start = Checkpoint(version=0, weights=MODEL)
    steps = [drift(number, start).weights for number in range(robots)]
    return {n: ROUNDS * np.mean([s[n] for s in steps], axis=0) for n in MODEL}


@pytest.mark.parametrize("arm", ["none", "fp16", "int8"])
def test_a_fleet_learns_the_same_in_every_form(arm):
    learned = learn(ARMS[arm], 3, Checkpoint(version=0, weights=MODEL), drift)
    for name, tensor in mean_of(3).items():
        np.testing.assert_allclose(learned[name], tensor, atol=0.02)


def test_every_round_goes_on_from_the_last_one():
    first = Checkpoint(version=0, weights=MODEL)
    made = list(rounds(ARMS["none"], 3, first, drift, ROUNDS))
    assert [one.version for one in made] == list(range(1, ROUNDS + 1))
    mean = mean_of(3)["head/kernel"] / ROUNDS
    for number, one in enumerate(made, 1):
        np.testing.assert_allclose(one.weights["head/kernel"], number * mean, atol=1e-5)


def test_what_the_largest_numbers_leave_out_comes_later():
    learned = learn(ARMS["topk"], 3, Checkpoint(version=0, weights=MODEL), drift)
    sent = np.count_nonzero(learned["head/kernel"])
    assert 256 < sent <= 3 * ROUNDS * 256


def test_a_message_is_its_tensors_and_little_more():
    for arm, least in (("none", 20_496), ("fp16", 10_256), ("int8", 5_152), ("topk", 1_040)):
        size = size_of(MODEL, ARMS[arm])
        assert least < size.up < least + 2500
        assert size_bytes(MODEL) < size.down < size_bytes(MODEL) + 2500


BLOCK = {
    "whole": Size(up=4000, down=4000),
    "lora": Size(up=1500, down=1500),
    "lora_int8": Size(up=500, down=1500),
}
WHOLE = Size(up=500_000, down=500_000)


BLOCKS = {  # accuracy after each round, one row a seed
    "whole": [[0.9, 0.95], [0.92, 0.93]],
    "lora": [[0.8, 0.9, 0.93], [0.8, 0.9, 0.93]],
    "lora_int8": [[0.8, 0.95, 0.9], [0.8, 0.91, 0.94]],
}


def test_both_directions_are_compared_and_a_loss_of_accuracy_is_named():
    scores = {arm: [0.9, 0.8] for arm in ARMS}
    worse = {**scores, HEAD: [0.88, 0.8]}
    head = {arm: Size(up=1000, down=3000) for arm in ARMS}

    made = result(scores, worse, BLOCKS, head, BLOCK, WHOLE, 14_000)

    assert {c.key: c.ratio for c in made.comparisons} == {
        "bytes_head": 250,
        "bytes_head_up": 500,
        "bytes_lora_int8": pytest.approx(500 * 2 / 3),  # two rounds of theirs, three of ours
        "bytes_lora_int8_per_round": 500,
    }
    assert made.figures["bytes_lora_int8_with_base"] == 2_000_000 / (6_000 + 14_000)
    assert made.figures["head_loss_points"] == pytest.approx(1)
    assert made.figures["camera_int8"] == pytest.approx(0.85)
    assert made.figures["int8_loss_points"] == pytest.approx(1)
    assert made.figures["accuracy_loss_points"] == pytest.approx(2)
    assert {limit.key: limit.at_most for limit in made.limits} == {
        "head_loss_points": 0.5,
        "int8_loss_points": 0.5,
        "accuracy_loss_points": 0.5,
    }


def test_the_last_round_counts_and_the_best_one_is_told():
    made = block_figures(BLOCKS)
    assert (made["rounds_whole"], made["rounds_lora_int8"]) == (2, 3)
    assert made["block_lora_int8"] == pytest.approx(0.92)
    assert made["block_best_lora_int8"] == pytest.approx(0.93)


def test_a_loss_over_all_seeds_has_an_interval():
    lost = np.array([2.4, -0.1, 0.8, 0.4, 0.3, 0.1, 0.3, -0.7, 2.3, 0.2])
    assert len(lost) == SEEDS
    curves = {
        "whole": [[0.9 + points / 100] for points in lost],
        "lora": [[0.9]] * SEEDS,
        "lora_int8": [[0.9]] * SEEDS,
    }
    made = block_figures(curves)
    assert made["accuracy_loss_points"] == pytest.approx(0.6)
    assert made["accuracy_loss_points_deviation"] == pytest.approx(0.99889, abs=1e-5)
    # scipy.stats.t.interval(0.95, 9, 0.6, 0.99889 / sqrt(10))
    assert made["accuracy_loss_points_low"] == pytest.approx(-0.1146, abs=1e-4)
    assert made["accuracy_loss_points_high"] == pytest.approx(1.3146, abs=1e-4)
    assert "accuracy_loss_points_low" not in block_figures(BLOCKS)


def test_the_arms_of_the_last_block_are_what_the_ratio_names():
    (ours, coded), (same, plain) = (block_fleet.ARMS[arm] for arm in ("lora_int8", "lora"))
    whole, full = block_fleet.ARMS["whole"]
    assert (str(coded), str(plain), str(full)) == ("int8", "float32", "float32")
    assert "--adapter" in block_fleet.FOLDERS[ours]
    assert ours == same
    assert "--adapter" not in block_fleet.FOLDERS[whole]
    assert block_fleet.ROUNDS.keys() == block_fleet.QUICK.keys() == block_fleet.ARMS.keys()


def test_a_robot_trains_on_frames_from_all_of_its_way():
    frames = [
        Example(raw=None, label="a", key=str(number), held_out=number % 4 == 3)
        for number in range(20)
    ]
    keys = [int(one.key) for one in block_fleet.spread(frames, 5)]
    assert len(set(keys)) == 5
    assert (keys[0], keys[-1]) == (0, 18)
    assert not any(key % 4 == 3 for key in keys)
    assert len(block_fleet.spread(frames, 99)) == 15
