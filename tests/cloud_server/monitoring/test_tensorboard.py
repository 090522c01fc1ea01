import subprocess
import sys
from types import ModuleType

import pytest

from cloud_server.monitoring.tensorboard import EVENTS, TensorBoardWriter
from cloud_server.state import history_file
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED, Outcome

# TensorBoard then reads files by itself, without loading TensorFlow for it.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture
def server_dir(tmp_path):
    return ServerDirectory(tmp_path)


def robot(name, outcome=ACCEPTED, norm=1.0):
    return RobotRecord(
        name=name,
        site="hall",
        outcome=outcome,
        norm=norm,
        weight=5 * (outcome == ACCEPTED),
        update_bytes=10**6,
    )


def close(server_dir, version, run="a", accuracy=0.5):
    record = RoundRecord(
        run=run,
        round=version,
        version=version,
        seconds=1.5,
        robots=(
            robot("r1"),
            robot("r2", norm=3.0),
            robot("r3", Outcome("refused", "x"), norm=1000.0),
        ),
        metrics={"accuracy_after": accuracy},
        asked=3,
    )
    server_dir.append_history(record.as_json())


def points(server_dir, tag, run="a"):
    reader = accumulator.EventAccumulator(str(server_dir.tensorboard / run))
    reader.Reload()
    return [(point.step, round(point.value, 6)) for point in reader.Scalars(tag)]


def test_tensorboard_reads_every_round_back(server_dir):
    writer = TensorBoardWriter(server_dir)
    for version in (1, 2, 3):
        close(server_dir, version, accuracy=version / 10)
        writer.catch_up()

    assert points(server_dir, "held_out/accuracy_after") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert points(server_dir, "round/seconds")[0] == (1, 1.5)
    assert points(server_dir, "round/asked")[0] == (1, 3)
    assert points(server_dir, "round/update_mb")[0] == (1, 3)
    assert points(server_dir, "round/examples")[0] == (1, 10)
    assert points(server_dir, "norm/median")[0] == (1, 1)
    assert points(server_dir, "norm/largest")[0] == (1, 3)
    assert points(server_dir, "robots/accepted")[0] == (1, 2)
    assert points(server_dir, "robots/refused")[0] == (1, 1)


def test_every_run_has_its_own_curve(server_dir):
    close(server_dir, 1, run="a")
    close(server_dir, 2, run="b")
    TensorBoardWriter(server_dir).catch_up()

    assert points(server_dir, "round/asked", run="a") == [(1, 3)]
    assert points(server_dir, "round/asked", run="b") == [(2, 3)]


def test_after_a_restart_no_round_is_written_twice_or_left_out(server_dir):
    close(server_dir, 1)
    TensorBoardWriter(server_dir).catch_up()
    close(server_dir, 2)  # and the server dies here

    close(server_dir, 3)
    TensorBoardWriter(server_dir).catch_up()

    assert [step for step, _ in points(server_dir, "round/asked")] == [1, 2, 3]


def test_a_line_that_the_history_has_twice_is_one_point(server_dir):
    close(server_dir, 1)
    close(server_dir, 1)
    TensorBoardWriter(server_dir).catch_up()

    assert len(points(server_dir, "round/asked")) == 1


@pytest.mark.parametrize("cut", [1, 4, 9, 40])
def test_a_torn_end_of_the_file_is_written_again(server_dir, cut):
    close(server_dir, 1)
    close(server_dir, 2)
    TensorBoardWriter(server_dir).catch_up()
    path = server_dir.tensorboard / "a" / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])

    close(server_dir, 3)
    TensorBoardWriter(server_dir).catch_up()

    assert [step for step, _ in points(server_dir, "round/asked")] == [1, 2, 3]


@pytest.mark.parametrize("content", [b"\0" * 100, b"not records", b""])
def test_a_file_of_anything_else_is_begun_again(server_dir, content):
    path = server_dir.tensorboard / "a" / EVENTS
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    close(server_dir, 1)
    TensorBoardWriter(server_dir).catch_up()

    assert points(server_dir, "round/asked") == [(1, 3)]


def test_a_folder_that_cannot_be_written_fails_nothing(server_dir, caplog):
    server_dir.tensorboard.write_text("in the way")

    close(server_dir, 1)
    TensorBoardWriter(server_dir).catch_up()

    assert "cannot be written" in caplog.text


def test_the_server_loads_no_tensorflow_for_it(server_dir):
    close(server_dir, 1)
    code = (
        "import sys; from pathlib import Path\n"
        "from cloud_server.state.directory import ServerDirectory\n"
        "from cloud_server.monitoring.tensorboard import TensorBoardWriter\n"
        f"TensorBoardWriter(ServerDirectory(Path({str(server_dir.root)!r}))).catch_up()\n"
        "print('tensorflow' in sys.modules, 'tensorboard.summary' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "False"]
    assert points(server_dir, "round/asked") == [(1, 3)]


def test_without_the_extra_the_error_says_how_to_install_it(server_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)

    with pytest.raises(Exception, match=r"pip install 'fleetlearn\[tensorboard\]'"):
        TensorBoardWriter(server_dir)


def test_after_a_restart_only_rounds_without_a_point_are_parsed(server_dir, monkeypatch):
    writer = TensorBoardWriter(server_dir)
    for version in range(1, 20):
        close(server_dir, version)
    writer.catch_up()
    for version in (20, 21):
        close(server_dir, version)
    parsed, parse = [], history_file.parse_record
    monkeypatch.setattr(
        history_file, "parse_record", lambda line: parsed.append(line) or parse(line)
    )

    TensorBoardWriter(server_dir).catch_up()

    assert len(parsed) == 2
    assert [step for step, _ in points(server_dir, "round/seconds")] == list(range(1, 22))
