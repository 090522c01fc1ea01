import subprocess
import sys
from types import ModuleType

import pytest

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.monitoring.tensorboard import EVENTS, Boards

# TensorBoard then reads files by itself, without loading TensorFlow for it.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def place(tmp_path):
    return ServerDirectory(tmp_path)


def robot(name, outcome="accepted", norm=1.0):
    accepted = outcome == "accepted"
    return RobotRecord(
        name=name, site="hall", outcome=outcome, norm=norm, weight=5 * accepted, update_bytes=10**6
    )


def close(place, version, run="a", accuracy=0.5):
    record = RoundRecord(
        run=run,
        round=version,
        version=version,
        seconds=1.5,
        robots=(robot("r1"), robot("r2", norm=3.0), robot("r3", "refused: x", norm=1000.0)),
        metrics={"accuracy_after": accuracy},
        asked=3,
    )
    place.append_history(record.as_json())


def points(place, tag, run="a"):
    reader = accumulator.EventAccumulator(str(place.tensorboard / run))
    reader.Reload()
    return [(point.step, round(point.value, 6)) for point in reader.Scalars(tag)]


def test_tensorboard_reads_every_round_back(place):
    boards = Boards(place)
    for version in (1, 2, 3):
        close(place, version, accuracy=version / 10)
        boards.catch_up()

    assert points(place, "held_out/accuracy_after") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert points(place, "round/seconds")[0] == (1, 1.5)
    assert points(place, "round/asked")[0] == (1, 3)
    assert points(place, "round/update_mb")[0] == (1, 3)
    assert points(place, "round/examples")[0] == (1, 10)
    assert points(place, "norm/median")[0] == (1, 1)
    assert points(place, "norm/largest")[0] == (1, 3)
    assert points(place, "robots/accepted")[0] == (1, 2)
    assert points(place, "robots/refused")[0] == (1, 1)


def test_every_run_has_its_own_curve(place):
    close(place, 1, run="a")
    close(place, 2, run="b")
    Boards(place).catch_up()

    assert points(place, "round/asked", run="a") == [(1, 3)]
    assert points(place, "round/asked", run="b") == [(2, 3)]


def test_after_a_restart_no_round_is_written_twice_or_left_out(place):
    close(place, 1)
    Boards(place).catch_up()
    close(place, 2)  # and the server dies here

    close(place, 3)
    Boards(place).catch_up()

    assert [step for step, _ in points(place, "round/asked")] == [1, 2, 3]


def test_a_line_that_the_history_has_twice_is_one_point(place):
    close(place, 1)
    close(place, 1)
    Boards(place).catch_up()

    assert len(points(place, "round/asked")) == 1


@pytest.mark.parametrize("cut", [1, 4, 9, 40])
def test_a_torn_end_of_the_file_is_written_again(place, cut):
    close(place, 1)
    close(place, 2)
    Boards(place).catch_up()
    path = place.tensorboard / "a" / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])

    close(place, 3)
    Boards(place).catch_up()

    assert [step for step, _ in points(place, "round/asked")] == [1, 2, 3]


@pytest.mark.parametrize("content", [b"\0" * 100, b"not records", b""])
def test_a_file_of_anything_else_is_begun_again(place, content):
    path = place.tensorboard / "a" / EVENTS
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    close(place, 1)
    Boards(place).catch_up()

    assert points(place, "round/asked") == [(1, 3)]


def test_a_folder_that_cannot_be_written_fails_nothing(place, caplog):
    place.tensorboard.write_text("in the way")

    close(place, 1)
    Boards(place).catch_up()

    assert "cannot be written" in caplog.text


def test_the_server_loads_no_tensorflow_for_it(place):
    close(place, 1)
    code = (
        "import sys; from pathlib import Path\n"
        "from cloud_server.state.directory import ServerDirectory\n"
        "from cloud_server.monitoring.tensorboard import Boards\n"
        f"Boards(ServerDirectory(Path({str(place.root)!r}))).catch_up()\n"
        "print('tensorflow' in sys.modules, 'tensorboard.summary' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
    assert points(place, "round/asked") == [(1, 3)]


def test_without_the_extra_the_error_says_how_to_install_it(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)

    with pytest.raises(Exception, match=r"pip install 'fleetlearn\[tensorboard\]'"):
        Boards(place)
