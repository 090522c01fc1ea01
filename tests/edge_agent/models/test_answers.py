"""Which examples a model is measured with, and which of them have a truth."""

from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.models.answers import examples_for
from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import FrameError
from fleet_model.types import Target

pytestmark = pytest.mark.base


@pytest.fixture
def detector():
    """Return a workload that takes whatever boxes an example has for the truth."""
    tensors = {"image": TensorSpec(shape=())}
    task = Task(
        inputs=tensors, targets=tensors, outputs=tensors, measures={"map": "higher"},
        answer="boxes", classes=("cup",),
    )  # fmt: skip

    def target(example):
        if not example.seen:
            raise FrameError("nobody has said what is in it")
        return Target(tensors={"count": np.array(len(example.boxes))})

    return SimpleNamespace(task=task, target=target)


@pytest.fixture
def pictures(tmp_path, picture_bytes):
    """Return a writer of so many pictures and a table of boxes; it returns a source."""

    def write(count, *lines):
        for index in range(count):
            (tmp_path / f"{index}.jpg").write_bytes(picture_bytes(index))
        (tmp_path / "labels.csv").write_text("\n".join(["file,label,x0,y0,x1,y1", *lines, ""]))
        options = {"paths": [str(tmp_path)], "topic": "", "label_topic": "", "held_out": 0.5}
        return {"name": "frames", "options": options}

    return write


def test_a_frame_that_was_found_empty_has_a_truth_and_one_that_nobody_looked_at_has_none(
    detector, pictures
):
    lines = [f"{index}.jpg,{'cup,1,2,9,8' if index % 2 else ',,,,'}" for index in range(8)]
    chosen, have_truth = examples_for(detector, pictures(20, *lines), 20)
    assert have_truth
    assert len(chosen) == 4
    assert {len(one.boxes) for one in chosen} == {0, 1}
    assert all(one.seen for one in chosen)


def test_where_nobody_has_looked_at_any_frame_there_is_something_to_try_but_no_truth(
    detector, pictures
):
    chosen, have_truth = examples_for(detector, pictures(6, "0.jpg,hall,,,,"), 4)
    assert (len(chosen), have_truth) == (4, False)
    assert not any(one.seen for one in chosen)
