import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from cloud_server.state import checkpoints as checkpoints_module
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import CheckpointError
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint

pytestmark = pytest.mark.base


def checkpoint(version, value=0.0):
    return Checkpoint(
        version=version,
        weights={"head/kernel": np.full((1280, 4), value, np.float32)},
        server_state={"momentum": np.full(3, value, np.float32)},
        seed=version * 7,
    )


@pytest.fixture
def root(tmp_path):
    Checkpoints(tmp_path).save(checkpoint(0))
    return tmp_path


def test_a_checkpoint_is_read_back_bit_for_bit(root):
    saved = checkpoint(3, value=0.1)
    Checkpoints(root).save(saved)

    read = Checkpoints(root).load(3)

    assert (read.version, read.seed) == (3, 21)
    assert read.weights["head/kernel"].tobytes() == saved.weights["head/kernel"].tobytes()
    assert read.server_state["momentum"].tobytes() == saved.server_state["momentum"].tobytes()


def test_the_newest_version_is_the_latest_also_beyond_six_digits(root):
    for version in (9, 10, 1_000_000, 999_999):
        Checkpoints(root).save(checkpoint(version))

    assert Checkpoints(root).latest().version == 1_000_000
    assert Checkpoints(root).versions() == [0, 9, 10, 999_999, 1_000_000]


def test_the_weights_of_a_version_are_a_file_for_the_export(root):
    assert Checkpoints(root).path(0).is_file()


def test_without_a_checkpoint_the_operator_is_told(tmp_path):
    with pytest.raises(
        CheckpointError, match="no checkpoint; restore it, or see `cloud-server repair DIR`"
    ):
        Checkpoints(tmp_path).latest()


SAVE_AND_DIE = """
import os, sys
from pathlib import Path
import numpy as np
from cloud_server.state import checkpoints as checkpoints_module
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.types import Checkpoint

left = int(sys.argv[2])

def count(function):
    def counted(*arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return function(*arguments)
    return counted

os.fsync, os.open, os.rename = count(os.fsync), count(os.open), count(os.rename)
weights = {"head/kernel": np.ones((1280, 4), np.float32)}
Checkpoints(Path(sys.argv[1])).save(Checkpoint(version=1, weights=weights))
print(int(sys.argv[2]) - left)
"""


def save_and_die(root, after):
    """Save version 1 in a process that is killed at a system call; return what it prints."""
    command = [sys.executable, "-c", SAVE_AND_DIE, str(root), str(after)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def calls_of_save(tmp_path_factory):
    return int(save_and_die(tmp_path_factory.mktemp("whole"), 1000))


@pytest.mark.parametrize("share", [0, 0.3, 0.6, 0.8, 0.9, 0.999])
def test_a_server_killed_while_it_saves_goes_on_from_a_whole_checkpoint(root, calls_of_save, share):
    assert save_and_die(root, int(share * calls_of_save)) == ""

    latest = Checkpoints(root).latest()
    assert latest.version in (0, 1)
    assert (latest.weights["head/kernel"] == latest.version).all()
    Checkpoints(root).save(checkpoint(1, value=1.0))
    assert Checkpoints(root).latest().version == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "server_state.safetensors"])
def test_a_flipped_byte_names_the_file_and_the_way_out(root, name):
    Checkpoints(root).save(checkpoint(1))
    path = root / "000001" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=f"checkpoint 1: {name} is .*damaged.*remove.*000001"):
        Checkpoints(root).latest()
    assert Checkpoints(root).load(0).version == 0


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "server_state.safetensors", "checkpoint.json"]
)
def test_a_missing_file_is_named(root, name):
    (root / "000000" / name).unlink()

    with pytest.raises(CheckpointError, match=f"checkpoint 0: {name} is missing"):
        Checkpoints(root).load(0)


@pytest.mark.parametrize("content", ["", "{}", '{"version": 0}'])
def test_a_damaged_description_is_named(root, content):
    (root / "000000" / "checkpoint.json").write_text(content)

    with pytest.raises(CheckpointError, match=r"checkpoint\.json is missing or damaged"):
        Checkpoints(root).load(0)


def test_a_digest_that_was_taken_away_does_not_pass(root):
    path = root / "000000" / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": {}}))

    with pytest.raises(CheckpointError, match=r"weights\.safetensors is missing or damaged"):
        Checkpoints(root).latest()


def test_a_version_is_replaced_as_a_whole(root):
    Checkpoints(root).save(checkpoint(0, value=5.0))

    assert Checkpoints(root).latest().weights["head/kernel"][0, 0] == 5.0
    assert [path.name for path in root.iterdir()] == ["000000"]


def record(version):
    robots = (RobotRecord(name="a", site="hall", outcome=ACCEPTED, norm=0.1),)
    return RoundRecord(
        run="r", round=1, version=version, seconds=2.5, robots=robots, metrics={"loss_after": 0.25}
    )


def test_the_record_of_a_round_is_kept_beside_its_weights(root):
    Checkpoints(root).save(checkpoint(1), record(1))
    Checkpoints(root).save(checkpoint(2), record(2))

    assert Checkpoints(root).records() == [record(1), record(2)]  # version 0 comes from no round


@pytest.mark.parametrize("content", ["", "{}", None])
def test_a_damaged_record_is_left_out_and_the_weights_can_be_used(root, content, caplog):
    Checkpoints(root).save(checkpoint(1), record(1))
    Checkpoints(root).save(checkpoint(2), record(2))
    file = root / "000001" / "record.json"
    if content is None:
        file.unlink()
    else:
        file.write_text(content)

    assert Checkpoints(root).records() == [record(2)]
    assert "checkpoint 1: record.json is left out" in caplog.text
    assert Checkpoints(root).load(1).version == 1


@pytest.mark.parametrize("content", ["", "{}", '{"version": 8, "seed": 0, "sha256": {}}', None])
def test_a_newest_folder_that_is_damaged_is_told_once_and_neither_passed_over_nor_deleted(
    root, content, caplog
):
    (root / "000009").mkdir()
    if content is not None:
        (root / "000009" / "checkpoint.json").write_text(content)
    checkpoints = Checkpoints(root)

    assert checkpoints.versions() == checkpoints.versions() == [0]
    assert checkpoints.newest() == 9
    with pytest.raises(CheckpointError, match=r"checkpoint 9: checkpoint\.json .* folder 000009"):
        checkpoints.latest()
    assert caplog.text.count("checkpoint 000009 is left out: its checkpoint.json is") == 1
    checkpoints.prune(1)
    assert (root / "000009").is_dir()


def test_a_description_that_the_disk_does_not_give_back_is_damaged(root):
    Checkpoints(root).save(checkpoint(1))
    (root / "000001" / "checkpoint.json").unlink()
    (root / "000001" / "checkpoint.json").mkdir()  # reading it is an OSError

    with pytest.raises(CheckpointError, match=r"checkpoint 1: checkpoint\.json .* folder 000001"):
        Checkpoints(root).latest()


def test_a_version_that_is_replaced_is_at_no_moment_half_deleted(root, monkeypatch):
    Checkpoints(root).save(checkpoint(1))

    def dies(folder, **_):
        if folder.exists():
            (folder / "checkpoint.json").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            Checkpoints(root).save(checkpoint(1, value=5.0))

    assert Checkpoints(root).latest().version == 0
    Checkpoints(root).save(checkpoint(1, value=5.0))
    assert Checkpoints(root).latest().weights["head/kernel"][0, 0] == 5.0


def test_a_folder_that_is_no_checkpoint_gives_way_to_the_round_that_is_closed_again(root):
    (root / "000001").mkdir()

    Checkpoints(root).save(checkpoint(1))

    assert Checkpoints(root).latest().version == 1


def test_only_the_newest_and_the_published_versions_stay(root):
    checkpoints = Checkpoints(root)
    for version in range(1, 8):
        checkpoints.save(checkpoint(version))

    assert checkpoints.prune(3, also={1, 6, 99}) == [0, 2, 3, 4]
    assert checkpoints.versions() == [1, 5, 6, 7]
    assert sorted(path.name for path in root.iterdir()) == ["000001", "000005", "000006", "000007"]
    assert checkpoints.prune(3, also={1}) == []


def test_a_half_deleted_checkpoint_is_none_and_is_deleted_the_next_time(root, monkeypatch):
    Checkpoints(root).save(checkpoint(1))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed just before
        Checkpoints(root).prune(1)

    assert Checkpoints(root).versions() == [1]
    Checkpoints(root).prune(1)
    assert [path.name for path in root.iterdir()] == ["000001"]


def test_pruning_reads_only_what_it_may_delete(root, monkeypatch):
    checkpoints, looked_at = Checkpoints(root), []
    for version in range(1, 30):
        checkpoints.save(checkpoint(version))
    whole = Checkpoints._is_whole
    monkeypatch.setattr(
        Checkpoints, "_is_whole", lambda self, v: looked_at.append(v) or whole(self, v)
    )

    assert checkpoints.prune(2, also=range(1, 25)) == [0, 25, 26, 27]
    assert sorted(looked_at) == [0, 25, 26, 27, 28, 29]


def test_a_damaged_checkpoint_counts_for_none_of_those_that_are_kept(root):
    checkpoints = Checkpoints(root)
    for version in range(1, 6):
        checkpoints.save(checkpoint(version))
    (root / "000005" / "checkpoint.json").write_text("{")
    (root / "000001" / "checkpoint.json").unlink()

    assert checkpoints.prune(2) == [0, 2]
    assert checkpoints.saved() == [1, 3, 4, 5]


def test_records_after_a_version_are_read_and_no_others(root, monkeypatch):
    for version in range(1, 9):
        Checkpoints(root).save(checkpoint(version), record(version))
    read = []
    parse = checkpoints_module.parse_record
    monkeypatch.setattr(
        checkpoints_module, "parse_record", lambda content: read.append(content) or parse(content)
    )

    assert Checkpoints(root).records(after=6) == [record(7), record(8)]
    assert Checkpoints(root).record(3) == record(3)
    assert Checkpoints(root).record(0) is None
    assert Checkpoints(root).record(77) is None
    assert len(read) == 3
