"""Commands over runs as a person types them, with a real server and without one."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from cloud_server.cli import app, terminal
from cloud_server.cli.runs import following, known, run_commands
from cloud_server.robots.register import Register
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.runs.schedule import Schedule, ScheduleFile
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import ConnectionFailed, RoundError, SettingsError
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.protocol.proof import public_line


def typed(*command):
    return CliRunner().invoke(app, [str(part) for part in command])


def out(*command):
    done = typed(*command)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def test_a_run_that_cannot_begin_is_followed_to_its_end_and_told(running_server):
    done = typed("train", running_server.server_dir.root, "--rounds", "2", "--json")

    assert isinstance(done.exception, RoundError)
    assert "0 robots online" in str(done.exception)
    assert json.loads(done.stdout)["state"] == "failed"


def test_a_run_for_which_all_robots_are_suspended_says_so_and_the_command(running_server):
    root = running_server.server_dir.root
    register = Register(running_server.server_dir.robots)
    for name in ("r1", "r2"):
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        register.add(name, "hall", public_line(key))
        register.suspend(name, "lens is broken")

    done = typed("train", root)

    approve = f"`cloud-server robots approve {root} r1 r2` lets them take part"
    assert f"0 robots online (none), expected at least 2; suspended: r1, r2; {approve}" in str(
        done.exception
    )


def test_a_detached_run_returns_at_once_and_is_listed_and_shown(running_server):
    root = running_server.server_dir.root
    run = json.loads(out("train", root, "--detach", "--json"))

    listed = json.loads(out("runs", "list", root, "--json"))

    assert run["id"] in {one["id"] for one in listed}
    assert run["id"] in out("runs", "show", root, run["id"])
    assert json.loads(out("runs", "show", root, "--json"))["id"] == run["id"]  # it is the newest
    assert json.loads(out("runs", "show", root, run["id"], "--json"))["id"] == run["id"]


def test_runs_are_listed_without_a_server(server_dir):
    run = Run(id="20260101-000000", rounds=3, started_at=1.0, state="failed", error="why")
    RunStore(server_dir.runs).save(run)

    shown = out("runs", "list", server_dir.root)
    assert "20260101-000000" in shown
    assert shown.endswith("\nrun 20260101-000000 failed: why\n")
    (listed,) = json.loads(out("runs", "list", server_dir.root, "--json"))
    assert (listed["id"], listed["error"]) == ("20260101-000000", "why")


@pytest.fixture
def apart(server_dir):
    """The name of a run of a ServerApp apart, with one closed round."""
    robots = (RobotRecord(name="r1", site="hall", outcome=ACCEPTED),)
    record = RoundRecord(run="apart", round=1, version=2, seconds=3.0, robots=robots, metrics={})
    server_dir.append_history(record.as_json())
    run = Run(id="apart", rounds=2, started_at=2.0, state="failed", error="why", rounds_closed=1)
    RunStore(server_dir.runs_apart).save(run)
    return run.id


def of_server(server_dir, monkeypatch, *, answers):
    """Let the server know a run that began before the one apart, and answer or not."""
    run = Run(id="own", rounds=1, started_at=1.0, state="finished", rounds_closed=1)
    RunStore(server_dir.runs).save(run)

    class Server:
        def runs(self):
            return [run.as_json()]

        def run(self, run_id):
            assert run_id == run.id
            return run.as_json()

    if answers:
        for module in (known, run_commands):
            monkeypatch.setattr(module, "client_of", lambda _: Server())


@pytest.mark.parametrize("answers", [True, False])
def test_runs_of_a_serverapp_apart_are_listed_and_shown_whether_a_server_answers_or_not(
    server_dir, apart, monkeypatch, answers
):
    of_server(server_dir, monkeypatch, answers=answers)

    listed = json.loads(out("runs", "list", server_dir.root, "--json"))
    assert [(run["id"], run["apart"]) for run in listed] == [("own", False), (apart, True)]
    assert "failed (flwr run)" in out("runs", "list", server_dir.root)

    shown = json.loads(out("runs", "show", server_dir.root, apart, "--json"))
    assert (shown["state"], shown["apart"]) == ("failed", True)
    assert [record["robots"][0]["name"] for record in shown["closed"]] == ["r1"]
    told = out("runs", "show", server_dir.root, apart)
    assert "run apart: failed (flwr run), 1 of 2 rounds" in told
    assert "round 1: 1/1 robots" in told
    assert "why" in told
    assert "run own: finished, 1 of 1 rounds" in out("runs", "show", server_dir.root, "own")
    assert out("runs", "show", server_dir.root) == told  # the newest, without its name


@pytest.mark.parametrize("name", [("apart",), ()], ids=["by its name", "as the newest"])
@pytest.mark.parametrize("command", ["stop", "resume"])
@pytest.mark.usefixtures("apart")
def test_a_run_of_a_serverapp_apart_is_stopped_and_resumed_with_flowers_commands(
    server_dir, command, name
):
    done = typed("runs", command, server_dir.root, *name)

    assert isinstance(done.exception, RoundError)
    assert "`flwr run` that has begun it goes on with it, `flwr stop` ends it" in str(
        done.exception
    )


def test_a_run_that_nobody_knows_is_asked_of_the_server(server_dir, apart):
    done = typed("runs", "show", server_dir.root, "20260101-000000")

    assert isinstance(done.exception, ConnectionFailed)


def test_stopping_needs_a_server(server_dir):
    done = typed("runs", "stop", server_dir.root, "20260101-000000")

    assert isinstance(done.exception, ConnectionFailed)
    assert "is it running?" in str(done.exception)


def test_the_schedule_is_shown_and_cleared_without_a_server(server_dir):
    root = server_dir.root
    assert "no schedule" in out("schedule", "show", root)
    assert json.loads(out("schedule", "show", root, "--json")) is None

    ScheduleFile(server_dir.schedule).save(Schedule(rounds=3, every_s=86400.0, set_at=4e9))

    assert "3 rounds every 1d; the next run is due 2096-10-02" in out("schedule", "show", root)
    assert json.loads(out("schedule", "show", root, "--json"))["due_at"] == 4e9
    typed("schedule", "clear", root)
    assert "no schedule" in out("schedule", "show", root)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--every", "24h", "--continuous"), "choose one"),
        (("--every", "5"), "30m, 24h or 7d"),
        (("--closed-form", "svm"), "choose ridge, lda, ncm, off"),
        (("--closed-form", "ridge", "--continuous"), "set start.closed_form"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_begins(server_dir, options, words):
    done = typed("train", server_dir.root, *options)

    assert isinstance(done.exception, SettingsError)
    assert words in str(done.exception)


def test_a_folder_that_is_no_server_directory_is_told(tmp_path):
    for command in (("runs", "list"), ("schedule", "show"), ("schedule", "clear"), ("train",)):
        done = typed(*command, tmp_path)
        assert isinstance(done.exception, SettingsError), command
        assert "not a server directory" in str(done.exception)


def test_a_robots_words_in_a_table_begin_no_line_and_move_no_cursor(capsys):
    terminal.table(("robot", "outcome"), [("r1", "failed: \x1b[2Jaccepted\nr2 \u202e")])
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert r"failed: \x1b[2Jaccepted\nr2" in told


def test_a_table_on_a_narrow_terminal_folds_between_words_only(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # stdout counts as a terminal
    monkeypatch.setenv("COLUMNS", "31")

    terminal.table(("run", "why"), [("20260101-000000", "expected [red] light " * 3)] * 2)

    shown = capsys.readouterr().out
    assert shown.count("20260101-000000") == 2
    assert shown.count("expected") == shown.count("[red]") == 6  # a cell is no markup
    assert "expected [red]" not in shown


def test_a_table_whose_words_do_not_fit_is_a_line_for_each_cell(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "31")

    terminal.table(("robot", "why", "key"), [("r1", "", "SHA256:" + "x" * 20), ("r2", "[b]", "k")])

    first = f"robot  r1\nkey    SHA256:{'x' * 20}\n"
    assert capsys.readouterr().out == f"{first}\nrobot  r2\nwhy    [b]\nkey    k\n\n"


def test_an_empty_table_has_its_columns(capsys):
    terminal.table(("run", "held out"), [])

    assert "held out" in capsys.readouterr().out


@pytest.fixture
def large_round(server_dir, monkeypatch):
    """A run whose round had more robots than the server holds; return the line of the history."""
    told = {"held_out": 4.0, "left_out_unlabelled": 12.0}
    robots = tuple(
        RobotRecord(
            name=f"r{number}", site="hall", outcome=ACCEPTED, metrics={} if number else told
        )
        for number in range(101)
    )
    # a loss after it that is not finite is dropped by whoever reads an update
    metrics = {"loss_before": 0.5, "accuracy_before": 0.25, "accuracy_after": 0.75}
    record = RoundRecord(
        run="a", round=1, version=2, seconds=3.0, robots=robots, metrics=metrics
    ).as_json()
    server_dir.append_history(record)
    run = Run(id="a", rounds=1, started_at=1.0, state="finished", published_version=2)
    before = run.as_json()
    run.add(record)

    class Server:
        def start_run(self, *_, **__):
            return {**before, "state": "running"}

        def run(self, _):
            return run.as_json()

    for module in (known, run_commands):
        monkeypatch.setattr(module, "client_of", lambda _: Server())
    return json.loads(json.dumps(record))


@pytest.mark.parametrize("command", [("runs", "show"), ("train",)])
def test_robots_that_the_server_does_not_hold_come_from_the_history(
    server_dir, large_round, command
):
    arguments = (server_dir.root, "a") if command == ("runs", "show") else (server_dir.root,)

    shown = json.loads(out(*command, *arguments, "--json"))

    assert shown["closed"] == [large_round]


def test_a_round_without_a_loss_after_it_is_told_all_the_same(server_dir, large_round):
    told = out("runs", "show", server_dir.root, "a")

    assert "robots, 3.0 s, held-out accuracy 0.250 -> 0.750 of 4 examples\n" in told


def test_a_followed_run_is_named_and_its_rounds_stay_on_their_lines(
    server_dir, large_round, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    done = typed("train", server_dir.root)

    assert done.exit_code == 0
    assert "run a has begun; it goes on without this command\n" in done.stderr
    assert done.stdout.splitlines() == [
        "round 1: 101/101 robots, 3.0 s, held-out accuracy 0.250 -> 0.750 of 4 examples",
        "left out by robots: 12 without a label",
        "WARNING: fewer than 20 held-out examples, so scores say little: r0 (4 held-out examples)",
        "version 2 is published after 0.0 s",
    ]


def test_a_directory_without_a_run_says_so(server_dir):
    done = typed("runs", "show", server_dir.root)

    assert isinstance(done.exception, RoundError)
    assert str(done.exception).startswith("there is no run yet; `cloud-server train ")


def test_with_json_the_rounds_are_told_beside_it(server_dir, large_round):
    done = typed("train", server_dir.root, "--json")

    assert json.loads(done.stdout)["closed"] == [large_round]
    assert "WARNING: fewer than 20 held-out examples" in done.stderr


def test_ctrl_c_says_that_the_run_goes_on_and_how_to_end_it(server_dir, large_round, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "_look", interrupted)

    done = typed("train", server_dir.root)

    assert done.exit_code == 130
    assert (
        f"run a goes on on the server; `cloud-server runs stop {server_dir.root} a` ends it\n"
        in done.stderr
    )
