import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.cli.status_commands import _tables
from cloud_server.cli.terminal import data_console, show_table
from cloud_server.robots.register import Register
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome
from fleet_model.protocol.proof import public_line


def command(*arguments):
    return [sys.executable, "-m", "cloud_server.cli", *map(str, arguments)]


@pytest.fixture
def type_in(cloud_server, monkeypatch):
    """Return a caller of the command line in this process, on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments, exit_code=0):
        code, out, err = cloud_server(*arguments)
        assert code == exit_code, err
        return out, err

    return call


def closed(version, run="a"):
    return RoundRecord(
        run=run,
        round=version,
        version=version,
        seconds=1.5,
        robots=(
            RobotRecord(name="r1", site="hall", outcome=ACCEPTED, metrics={"loss_after": 0.25}),
            RobotRecord(name="r2", site="hall", outcome=NO_REPLY),
            RobotRecord(
                name="r3", site="hall", outcome=Outcome("refused", "[bold]NaN[/bold] " + "x" * 150)
            ),
        ),
        metrics={"loss_before": 0.5, "loss_after": 0.25},
        asked=3,
        late=1,
    )


@pytest.fixture(scope="module")
def running_dir(running_server):
    """A running server that knows two robots and has closed a round."""
    register = Register(running_server.server_dir.robots)
    for name in ("r1", "r2"):
        line = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
        register.add(name, "hall", line, pending=name == "r2")
    running_server.server_dir.append_history(closed(2).as_json())
    return running_server.server_dir


def test_status_shows_robots_and_says_what_happened(running_dir, type_in):
    out, err = type_in("status", running_dir.root)

    assert err == ""
    assert "approved" in out
    assert "never" in out
    assert "run a round 2 closed in 1.5 s with version 2: accepted r1; no reply from r2" in out
    approve = f"cloud-server robots approve {running_dir.root} r2"
    assert f"robot r2 waits for approval: {approve}\n" in out
    assert "offline: r1 (never seen)\n" in out
    assert "offline" in out.partition("r1")[2].splitlines()[0]


def test_status_shows_the_newest_runs_first_and_what_robots_tell_of_themselves(capsys):
    def of(name, **more):
        known = {"name": name, "site": "hall", "state": "approved", "online": True, "report": None}
        return known | {"last_seen_s": 1.0, "active_version": 3} | more

    robots = [
        of("r1", report={"examples": 95, "battery": 62.4}),
        of("r2"),
        of("r3", away=True, last_seen_s=1992.0),
        of("r4", report={"busy": "docking"}),
    ]
    runs = [
        {"id": f"run-{n}", "state": "finished", "started_at": time.time() - 100 * (8 - n),
         "rounds": 2, "rounds_closed": 2, "published_version": n}
        for n in range(8)
    ]  # fmt: skip
    last = {"robots": [{"name": "r2", "verdict": "failed"}]}
    for made in _tables({"robots": robots, "runs": runs, "last_round": last}):
        show_table(data_console(), made)

    rows = [
        [cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.split("\n")
    ]
    known = {row[1]: row[2:-1] for row in rows if len(row) > 2}
    assert known["r1"][2:] == ["yes", "1 s ago", "3", "95", "62 %"]
    assert known["r2"][2:] == ["yes, but failed last time", "1 s ago", "3", "-", "-"]
    assert known["r3"][2:4] == ["offline", "33 min ago"]
    assert known["r4"][2] == "busy: docking"
    assert [name for name in known if name.startswith("run-")] == [
        f"run-{n}" for n in (7, 6, 5, 4, 3)
    ]
    assert known["run-3"] == ["finished", "8 min ago", "2 of 2", "version 3"]


def test_status_says_what_is_missing_on_the_server_and_how_to_rebuild_it(running_dir, type_in):
    objects = running_dir.store / "objects"
    objects.rename(objects.with_name("away"))
    try:
        out, _ = type_in("status", running_dir.root)
    finally:
        objects.with_name("away").rename(objects)

    assert "version 1, which channel stable offers, lacks head.tflite, " in out
    assert f"robots cannot install it; rebuild it: cloud-server repair {running_dir.root}\n" in out


def test_a_long_reason_stays_on_its_line_and_is_no_markup(running_dir, type_in):
    out, _ = type_in("status", running_dir.root)

    assert f"robot r3: refused: [bold]NaN[/bold] {'x' * 150}\n" in out


def test_status_as_json_holds_everything(running_dir, type_in):
    out, _ = type_in("status", running_dir.root, "--json")

    answer = json.loads(out)
    assert [robot["name"] for robot in answer["robots"]] == ["r1", "r2"]
    assert answer["runs"] == []
    assert answer["channels"] == {"stable": 1}
    assert answer["open_round"] is None
    assert answer["waiting"] == []
    assert answer["last_round"]["version"] == 2
    assert any("waits for approval" in line for line in answer["words"])


def test_watch_as_json_is_a_line_a_look_until_ctrl_c(running_dir):
    process = subprocess.Popen(
        command("status", running_dir.root, "--watch", "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    first, second = (json.loads(process.stdout.readline()) for _ in range(2))

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)

    assert [robot["name"] for robot in first["robots"]] == ["r1", "r2"]
    assert second["channels"] == {"stable": 1}
    assert process.returncode == 130
    assert "Traceback" not in err


def test_watch_into_a_pipe_folds_nothing(running_dir):
    process = subprocess.Popen(
        command("status", running_dir.root, "--watch"), stdout=subprocess.PIPE, text=True,
        env={**os.environ, "COLUMNS": "40"},
    )  # fmt: skip
    approve = f"cloud-server robots approve {running_dir.root} r2"
    wanted = f"robot r2 waits for approval: {approve}\n"
    lines = [process.stdout.readline() for _ in range(30)]
    process.kill()
    process.communicate()

    assert wanted in lines


def test_watch_draws_on_a_terminal(running_dir):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("status", running_dir.root, "--watch"), stdout=theirs, stderr=theirs,
        env={**os.environ, "COLUMNS": "160", "LINES": "50", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while seen.count(b"waits for approval") < 2:  # drawn again in the same place
        seen += os.read(ours, 1 << 16)
    process.send_signal(signal.SIGINT)
    try:
        while os.read(ours, 1 << 16):
            pass
    except OSError:  # the end of a terminal
        pass

    assert process.wait(240) == 130
    assert b"\x1b[" in seen


def test_watch_waits_for_a_server_that_is_away(server_dir):
    process = subprocess.Popen(
        command("status", server_dir.root, "--watch", "--json"),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    looks = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.communicate()

    for look in looks:
        assert "no answer from" in look["words"][0]
        assert look["robots"] == []


@pytest.fixture
def quiet_server_dir(server_dir):
    """A directory with two rounds of two runs; its server does not run."""
    server_dir.append_history(closed(2, run="a").as_json())
    server_dir.append_history(closed(3, run="b").as_json())
    return server_dir


def test_history_is_a_table_of_rounds(quiet_server_dir, type_in):
    out, err = type_in("history", quiet_server_dir.root)

    assert err == ""
    assert "loss 0.500 -> 0.250" in out
    assert len([line for line in out.splitlines() if "loss 0.5" in line]) == 2


def test_history_keeps_whole_lines_in_a_pipe_and_whole_words_within_80_columns(
    quiet_server_dir, type_in, monkeypatch
):
    record = closed(4, run="20260101-000000")
    quiet_server_dir.append_history(record.as_json())
    monkeypatch.setenv("COLUMNS", "80")

    piped, _ = type_in("history", quiet_server_dir.root)
    monkeypatch.setenv("FORCE_COLOR", "1")  # stdout counts as a terminal
    shown, _ = type_in("history", quiet_server_dir.root)

    (line,) = (line for line in piped.splitlines() if record.run in line)
    assert "1 of 3" in line
    assert "loss 0.500 -> 0.250" in line
    assert record.run in shown
    assert len(shown.splitlines()[0]) <= 80  # the frame: it has no colors


def test_history_shows_the_newest_rounds_and_says_how_to_see_all(quiet_server_dir, type_in):
    for version in range(4, 64):
        quiet_server_dir.append_history(closed(version).as_json())

    newest, told = type_in("history", quiet_server_dir.root)
    last, _ = type_in("history", quiet_server_dir.root, "--last", "3")
    every, silence = type_in("history", quiet_server_dir.root, "--all")
    values, _ = type_in("history", quiet_server_dir.root, "--json", "--last", "3")

    assert [shown.count("loss 0.5") for shown in (newest, last, every)] == [50, 3, 62]
    assert told.strip() == "the newest 50 rounds; --all shows every round"
    assert silence == ""
    assert [record["version"] for record in json.loads(values)] == [61, 62, 63]


def test_history_as_json_is_every_round_with_its_robots(quiet_server_dir, type_in):
    out, _ = type_in("history", quiet_server_dir.root, "--json")

    wanted = [closed(2, run="a"), closed(3, run="b")]
    told = [record.as_json() | {"release": None} for record in wanted]
    assert json.loads(out) == json.loads(json.dumps(told))


def test_history_as_csv_is_a_row_a_robot(quiet_server_dir, type_in):
    out, _ = type_in("history", quiet_server_dir.root, "--csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["version"], row["robot"], row["verdict"]) for row in rows] == [
        (version, name, verdict)
        for version in "23"
        for name, verdict in (("r1", "accepted"), ("r2", "no_reply"), ("r3", "refused"))
    ]
    assert rows[0]["loss_after"] == "0.25"


def test_history_of_one_run(quiet_server_dir, type_in):
    out, _ = type_in("history", quiet_server_dir.root, "--run", "b", "--json")

    assert [record["run"] for record in json.loads(out)] == ["b"]


@pytest.fixture
def second_channel(quiet_server_dir):
    """The same directory with one round of another channel, which is trained by itself."""
    own = replace(quiet_server_dir, lineage="detector")
    (own.home / "checkpoints").mkdir(parents=True)
    own.append_history(closed(2, run="d").as_json())
    return own


def test_history_of_a_channel_that_is_trained_by_itself(second_channel, type_in, monkeypatch):
    def runs_of(*arguments):
        out, _ = type_in("history", second_channel.root, "--json", *arguments)
        return [record["run"] for record in json.loads(out)]

    assert runs_of() == runs_of("--channel", "stable") == ["a", "b"]
    assert runs_of("--channel", "detector") == runs_of("--run", "d") == ["d"]
    monkeypatch.setenv("FLEETLEARN_PUBLISH__CHANNEL", "detector")
    assert runs_of() == ["d"]
    assert runs_of("--run", "a") == ["a"]
    _, err = type_in("history", second_channel.root, "--channel", "detectr", exit_code=2)
    assert "--channel detectr: nothing is published on it" in err


def test_history_of_an_unknown_run_is_an_error(quiet_server_dir, type_in):
    out, err = type_in("history", quiet_server_dir.root, "--run", "c", "--csv", exit_code=2)

    assert out == ""
    assert "--run c: no round of it has closed" in err


def test_two_formats_at_once_are_refused(quiet_server_dir, type_in):
    _, err = type_in("history", quiet_server_dir.root, "--json", "--csv", exit_code=2)

    assert "choose one" in err


def test_a_server_without_rounds_has_an_empty_history(server_dir, type_in):
    out, _ = type_in("history", server_dir.root, "--json")

    assert json.loads(out) == []


def test_history_that_was_lost_comes_from_the_checkpoints(server_dir, type_in):
    checkpoints = Checkpoints(server_dir.checkpoints)
    latest = checkpoints.latest()
    checkpoints.save(type(latest)(version=2, weights=latest.weights, seed=latest.seed), closed(2))

    out, _ = type_in("history", server_dir.root, "--csv")

    assert out.count("\na,2,2,") == 3


def test_history_of_a_folder_that_is_no_server_directory_is_refused(type_in, tmp_path):
    _, err = type_in("history", tmp_path, exit_code=2)

    assert "not a server directory" in err
