"""Tensors that a robot keeps: as they were written, or damaged; a killed process leaves nothing."""

import numpy as np
import pytest

from edge_agent.robot.kept_tensors import keep, read_kept
from fleet_model.errors import CheckpointError

pytestmark = pytest.mark.base
TENSORS = {"a/w": np.arange(3, dtype=np.float32)}


def test_they_are_read_as_they_were_written(tmp_path):
    file = tmp_path / "new" / "kept.safetensors"
    assert read_kept(file) is None
    keep(file, TENSORS, {"trainer": "one"})
    texts, tensors = read_kept(file)
    assert texts == {"trainer": "one"}
    np.testing.assert_array_equal(tensors["a/w"], TENSORS["a/w"])
    keep(file, TENSORS)
    assert read_kept(file)[0] == {}


def test_a_damaged_file_is_told(tmp_path):
    file = tmp_path / "kept.safetensors"
    keep(file, TENSORS)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"kept\.safetensors: not a readable"):
        read_kept(file)


def test_what_a_killed_process_has_left_aside_goes_with_the_next_write(tmp_path):
    gone, alive = tmp_path / ".kept.safetensors.4194999.new", tmp_path / ".other.1.new"
    for aside in (gone, alive):  # of a process id that Linux does not give, and of one that runs
        aside.write_bytes(b"half")
    keep(tmp_path / "kept.safetensors", TENSORS)
    assert sorted(one.name for one in tmp_path.iterdir()) == [alive.name, "kept.safetensors"]
