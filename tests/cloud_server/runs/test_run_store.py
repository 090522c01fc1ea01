"""Runs on disk."""

import pytest

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.runs import run_store
from cloud_server.runs.run_store import Run, RunStore, recall
from cloud_server.state import history_file
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import StorageError
from fleet_model.protocol.outcome import ACCEPTED


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "runs")


def test_a_run_comes_back_as_it_was_saved_oldest_first(store):
    flower = FlowerRun(run_id=2**64 - 1, task_id=2**63)
    late = Run(id="a", rounds=3, started_at=20.0, state="running", flower=flower, rounds_closed=2)
    early = Run(id="b", rounds=1, started_at=10.0, state="failed", error="why", exit_code=10)
    store.save(late)
    store.save(early)

    assert store.load() == [early, late]


def test_closed_rounds_are_for_the_operator_and_not_in_the_file(store):
    run = Run(id="a", rounds=3, started_at=20.0)
    run.add({"round": 1, "version": 5})
    run.add({"round": 1, "version": 5})
    store.save(run)

    assert run.closed == [{"round": 1, "version": 5}]
    assert run.as_json()["closed"] == run.closed
    (loaded,) = store.load()
    assert (loaded.rounds_closed, loaded.closed) == (1, [])


def test_only_the_newest_rounds_are_held_and_fewer_are_told():
    run = Run(id="a", rounds=500, started_at=20.0)
    for number in range(1, 301):
        run.add({"round": number})

    assert run.rounds_closed == 300
    assert [record["round"] for record in run.closed] == list(range(201, 301))
    assert [record["round"] for record in run.as_json()["closed"]] == list(range(291, 301))


def large(number, robots):
    """Return a closed round as JSON."""
    one = {"name": "r1", "site": "hall", "verdict": "accepted"}
    return {"round": number, "robots": [one] * (robots - 1) + [{**one, "verdict": "busy"}]}


def test_robots_of_the_newest_small_rounds_are_held_and_of_the_others_their_verdicts():
    run = Run(id="a", rounds=500, started_at=20.0)
    for number in range(1, 5):
        run.add(large(number, 40))

    assert [len(record.get("robots", ())) for record in run.closed] == [0, 0, 40, 40]
    assert run.closed[0] == {"round": 1, "verdicts": {"accepted": 39, "busy": 1}}
    run.add(large(5, 1000))
    assert not any("robots" in record for record in run.as_json()["closed"])
    assert run.closed[-1]["verdicts"] == {"accepted": 999, "busy": 1}


def test_a_damaged_file_is_left_out_and_told(store, caplog):
    store.save(Run(id="a", rounds=3, started_at=20.0))
    (store.directory("b")).mkdir()
    (store.directory("b") / "run.json").write_text("{")

    assert [run.id for run in store.load()] == ["a"]
    assert "run.json is left out" in caplog.text


def test_names_are_in_the_order_of_time_and_never_given_twice(store):
    first = store.new_id(0.0)
    store.save(Run(id=first, rounds=1, started_at=0.0))

    assert first == "19700101-000000"
    assert store.new_id(0.0) == "19700101-000000b"


def test_one_run_is_found_by_its_name(store):
    run = Run(id="a", rounds=3, started_at=20.0)
    store.save(run)

    assert store.get("a") == run
    assert store.get("../runs/a") is None


def test_forgetting_leaves_runs_that_go_on(store):
    runs = [
        Run(id="a", rounds=1, started_at=1, state="failed"),
        Run(id="b", rounds=1, started_at=2),
    ]
    for run in runs:
        store.save(run)

    store.forget(runs)

    assert [run.id for run in store.load()] == ["b"]


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")

    with pytest.raises(StorageError, match=r"run\.json cannot be written"):
        RunStore(tmp_path / "runs").save(Run(id="a", rounds=1, started_at=1))


@pytest.fixture
def history(tmp_path):
    """Rounds of three runs; the second was resumed after the third."""
    server_dir = ServerDirectory(tmp_path)
    for version, (run, number) in enumerate(
        [*(("a", n) for n in range(1, 121)), ("b", 1), ("c", 1), ("b", 2)], start=1
    ):
        robots = (RobotRecord(name="r1", site="hall", outcome=ACCEPTED),)
        record = RoundRecord(
            run=run, round=number, version=version, seconds=1.0, robots=robots, metrics={}
        )
        server_dir.append_history(record.as_json())
    return server_dir.history


def test_runs_of_an_earlier_process_get_their_newest_rounds_back(history):
    runs = [Run(id=name, rounds=200, started_at=0.0, rounds_closed=1) for name in "abcd"]

    recall(history, runs)

    closed = [[record["round"] for record in run.closed] for run in runs]
    assert closed == [list(range(21, 121)), [1, 2], [1], []]
    assert [run.rounds_closed for run in runs] == [120, 2, 1, 1]


def test_only_the_lines_of_the_runs_asked_for_are_parsed(history, monkeypatch):
    parsed, parse = [], history_file.parse_record
    monkeypatch.setattr(
        history_file, "parse_record", lambda line: parsed.append(line) or parse(line)
    )
    run = Run(id="b", rounds=2, started_at=0.0, rounds_closed=2)

    recall(history, [run])

    assert len(parsed) == len(run.closed) == 2


def test_a_run_that_closed_nothing_reads_nothing(history, monkeypatch):
    monkeypatch.delattr(run_store, "newest_lines")

    recall(history, [Run(id="z", rounds=2, started_at=0.0, state="failed")])


def test_a_run_is_found_by_its_name_alone(store, tmp_path):
    store.save(Run(id="a", rounds=1, started_at=0.0))

    assert store.get("a").id == "a"
    assert store.get("b") is store.get("../runs/a") is store.get("") is store.get(".") is None
