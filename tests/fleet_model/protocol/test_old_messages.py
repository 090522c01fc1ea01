"""Messages of commit 87262d4 are still understood (tests/data/make_state_87262d4.py)."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from fleet_model.flower import quiet
from fleet_model.protocol.wire import unpack_request, unpack_update

STATE = Path(__file__).parents[2] / "data" / "state_87262d4.tar.xz"
KERNEL = np.arange(24, dtype=np.float32).reshape(8, 3) / 7


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return what reads a recorded message by its name."""
    quiet()
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    root = tmp_path_factory.mktemp("messages")
    with tarfile.open(STATE) as archive:
        archive.extractall(root, filter="data", members=_messages(archive))

    def recorded(name):
        folder = root / "messages" / name
        objects = {file.name: file.read_bytes() for file in folder.iterdir()}
        return inflate_object_from_contents(objects.pop("root").decode(), objects)

    return recorded


def _messages(archive):
    return [member for member in archive if "messages" in member.name]


def test_a_request_of_an_old_server_is_read(recorded):
    request = unpack_request(recorded("request"))
    assert (request.run, request.round, request.deadline_s) == ("20261122-160000", 2, 60.0)
    assert (request.trainer, request.trainer_bytes) == ("a" * 64, 927)
    assert request.checkpoint.version == 4
    assert np.array_equal(request.checkpoint.weights["head/kernel"], KERNEL)
    config = request.config
    assert (config.epochs, config.momentum, config.seed, config.batch_size) == (3, 0.5, 4, 32)


def test_an_update_of_an_old_robot_is_read(recorded):
    update = unpack_update(recorded("update"), "r1")
    assert (update.base_version, update.num_examples, update.num_steps) == (4, 12, 9)
    assert update.metrics == {"loss_before": 1.5, "held_out": 3.0}
    assert np.array_equal(update.weights["head/kernel"], -KERNEL)
