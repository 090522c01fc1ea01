"""What is said of runs, by value."""

from types import SimpleNamespace

from cloud_server.console.desk import Desk
from cloud_server.console.runs_view import curves, one_run, run_rows
from cloud_server.monitoring.fleet_status import Overview
from cloud_server.rounds.progress import RoundProgress
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RobotRecord, RoundRecord, mean_metrics, spread
from cloud_server.state.settings import ServerSettings
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome


def robot(name, outcome=ACCEPTED, after=0.8):
    metrics = {"accuracy_before": 0.5, "accuracy_after": after, "held_out": 10.0}
    metrics |= {"left_out_unknown_label": 2.0}
    good = outcome is ACCEPTED
    return RobotRecord(
        name=name, site="hall", outcome=outcome, num_examples=30 if good else 0,
        weight=20 if good else 0, metrics=metrics if good else {},
    )  # fmt: skip


def record(number, *robots, run="a"):
    means = mean_metrics(robots)
    return RoundRecord(
        run=run, round=number, version=number, seconds=2.0, robots=robots, metrics=means,
        asked=len(robots), spread=spread(robots, means),
    )  # fmt: skip


def run_of(*records, **fields):
    run = Run(**({"id": "a", "rounds": 3, "started_at": 0.0, "channel": "stable"} | fields))
    for one in records:
        run.add(one.as_json())
    return run


def desk(tmp_path, *runs, open_round=None):
    shown = {run.id: {**run.as_json(100), "open_round": open_round} for run in runs}
    of = SimpleNamespace(known=lambda: list(runs), shown=shown.get)
    overview = Overview(None, None, None, None, of, None, None, None)
    return Desk(ServerDirectory(tmp_path), ServerSettings(), overview)


ROUNDS = (
    record(1, robot("r1"), robot("r2", after=0.6), robot("r3", NO_REPLY)),
    record(2, robot("r1", after=0.9), robot("r2", Outcome("refused", "its norm is 41"))),
)


def test_a_run_shows_who_was_chosen_replied_and_was_refused_and_why(tmp_path):
    told = one_run(desk(tmp_path, run_of(*ROUNDS)), "a", "")
    assert told["number"] == 2
    assert [(one["name"], one["kind"], one["text"]) for one in told["robots"]] == [
        ("r1", "accepted", "accepted"), ("r2", "refused", "refused: its norm is 41"),
    ]  # fmt: skip
    (second, first) = told["rounds"]
    assert (first["accepted"], first["of"], first["others"]) == (2, 3, "1 no reply")
    assert (first["held_out"], second["held_out"]) == (20, 10)
    assert first["score"] == "accuracy 0.500 -> 0.700 (robots 0.600 to 0.800) of 20 examples"
    assert first["left_out"].startswith("4 ")
    mine = told["robots"][0]
    assert (mine["examples"], mine["weight"], mine["held_out"]) == (30, 20, 10)
    assert mine["scores"] == "accuracy 0.500 → 0.900"


def test_another_round_is_shown_when_it_is_asked_for(tmp_path):
    here = desk(tmp_path, run_of(*ROUNDS))
    assert [one["name"] for one in one_run(here, "a", "1")["robots"]] == ["r1", "r2", "r3"]
    for nonsense in ("7", "x", "-1", ""):
        assert one_run(here, "a", nonsense)["number"] == 2
    assert one_run(here, "none", "") is None


def test_robots_of_a_large_round_come_from_the_history(tmp_path):
    here = desk(tmp_path, run_of(record(1, *(robot(f"r{i:03d}") for i in range(150)))))
    run = here.runs.shown("a")
    assert "robots" not in run["closed"][0]
    kept = record(1, *(robot(f"r{i:03d}") for i in range(150)))
    here.server_dir.append_history(record(1, robot("x"), run="b").as_json())
    here.server_dir.append_history(kept.as_json())
    assert len(one_run(here, "a", "1")["robots"]) == 150


def test_the_open_round_says_who_replied_last_and_for_whom_it_waits(tmp_path):
    progress = RoundProgress(
        run="a", round=2, asked=3, answered=2, good=1, began=0.0, deadline=60.0, awaited=["r3"],
        replies=[("r1", "accepted", "accepted"), ("r2", "busy", "busy: a mission")],
    )  # fmt: skip
    now = progress.at(20.0, {"r1"}).as_json()
    told = one_run(desk(tmp_path, run_of(state="running"), open_round=now), "a", "")
    assert told["active"]
    assert told["open"]["left"] == "40 s"
    assert told["open"]["whom"] == "r3 (offline)"
    assert [(one["name"], one["text"]) for one in told["open"]["replied"]] == [
        ("r2", "busy: a mission"), ("r1", "accepted"),
    ]  # fmt: skip


def test_the_list_has_all_runs_the_newest_first_and_those_apart(tmp_path):
    RunStore(tmp_path / "runs-apart").save(run_of(id="c", started_at=2.0, state="failed"))
    runs = (run_of(id="a"), run_of(id="b", started_at=3.0, error="round 1: too few"))
    rows = run_rows(desk(tmp_path, *runs))
    assert [(row["id"], row["apart"]) for row in rows] == [("b", False), ("c", True), ("a", False)]
    assert rows[0]["error"] == "round 1: too few"
    assert one_run(desk(tmp_path), "c", "")["run"]["apart"]


def test_a_curve_has_the_means_and_the_range_over_robots():
    ((name, chart),) = curves([one.as_json() for one in ROUNDS])
    assert name == "accuracy"
    assert "after training, round 1: 70%" in chart
    assert "before, round 2: 50%" in chart
    assert 'class="area"' in chart
    assert chart.count('class="reach"') == 2
    assert "style=" not in chart  # the pages allow none
    assert curves([]) == []


def test_a_range_stands_at_the_lowest_and_the_highest_robot():
    ((_, chart),) = curves([ROUNDS[0].as_json()])
    # 190 units are 100 %, from 200 upwards: 0.6 and 0.8.
    assert 'd="M243.0 86.0V48.0" class="reach"' in chart
