"""The parts of benchmarks/compression_pictures.py that can be wrong without anyone noticing."""

import pytest

from benchmarks import compression_data
from benchmarks.compression import together
from benchmarks.compression_pictures import FULL, QUICK, UNTIL, recipe_of, result
from benchmarks.measure import Comparison, Limit, Result
from cloud_server.compression.recipes.recipe import Distill, Prune, Quantize, Teacher, read_recipe


def model(size, accuracy, p50):
    return {"size_bytes": size, "accuracy": accuracy, "p50_ms": p50}


SAME = model(40, 0.9, 0.4)
FOUND = {
    "camera": {
        "teacher": model(1000, 0.95, 2.0), "distill (seed 1)": model(500, 0.5, 1.0),
        "prune (seed 1)": model(100, 0.94, 0.4), "int8 (seed 1)": model(30, 0.93, 0.3),
        "prune (seed 2)": model(100, 0.95, 0.4), "int8 (seed 2)": model(30, 0.95, 0.3),
        "dynamic (seed 1)": SAME, "dynamic (seed 2)": SAME,
    },
    "fashion": {
        "teacher": model(1000, 0.90, 2.0),
        "prune (seed 1)": model(120, 0.90, 0.5), "int8 (seed 1)": model(30, 0.91, 0.3),
        "dynamic (seed 1)": SAME,
    },
}  # fmt: skip


def test_each_student_is_compared_with_its_own_teacher():
    found = result(FOUND, limited=True)
    expected = {
        "student_size_share": 0.12, "student_accuracy_drop": 0.01 / 3,
        "student_accuracy_drop_most": 0.01, "int8_accuracy_drop": 0.0,
        "dynamic_accuracy_drop": 0.03,
        "camera_teacher_accuracy": 0.95, "camera_student_accuracy": 0.945,
    }  # fmt: skip
    assert {name: found.figures[name] for name in expected} == pytest.approx(expected)
    (latency,) = found.comparisons
    assert latency.key == "student_latency"
    assert latency.ratio == pytest.approx(2.0 / (1.3 / 3))
    assert {one.key: one.at_most for one in found.limits} == {
        "student_size_share": 0.15, "student_accuracy_drop": 0.006,
        "student_accuracy_drop_most": 0.015, "int8_accuracy_drop": 0.005,
    }  # fmt: skip
    assert [one.key for one in result(FOUND, limited=False).limits] == ["student_size_share"]


def test_the_recipe_is_one_that_the_command_reads(tmp_path):
    (tmp_path / "small.toml").write_text(recipe_of(FULL))
    found = read_recipe(tmp_path / "small.toml")
    assert [type(one) for one in found.step[:-1]] == [Teacher, Distill, Prune, Quantize]
    assert found.step[1].until == UNTIL
    assert found.sweep == {"distill.seed": (1, 2, 3)}
    assert found.step[-1].threads == 1
    assert QUICK.train < 1000 < FULL.train


def test_robots_that_test_are_not_those_that_train():
    seen, unseen = set(compression_data.SEEN), set(compression_data.UNSEEN)
    assert not seen & unseen
    assert compression_data.TRAINING % len(seen) == 0
    assert compression_data.TESTS // 2 % len(seen) == 0  # so half of them are of each kind
    assert len(seen) == len(unseen)
    halls = {robot.split("/")[0] for robot in unseen} - {robot.split("/")[0] for robot in seen}
    assert len(halls) == 3


def test_results_of_parts_are_one_result():
    one = Result(benchmark="a", comparisons=[Comparison("x", "s", 1, 2)], figures={"f": 1})
    other = Result(benchmark="b", comparisons=[], figures={"g": 2}, limits=[Limit("g", 3)])
    found = together([one, other])
    assert found.benchmark == "compression"
    assert (len(found.comparisons), found.figures, len(found.limits)) == (1, {"f": 1, "g": 2}, 1)
