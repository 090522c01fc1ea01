"""What `train` tells while a run goes on: the server is scripted, its records are real."""

from dataclasses import replace

import pytest

from cloud_server.cli.runs import following
from cloud_server.cli.runs.following import follow, round_lines
from cloud_server.cli.terminal import show_evaluation
from cloud_server.rounds.progress import RoundProgress
from cloud_server.runs.run_store import MAX_ROBOTS, Run
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, NOT_REACHED, Outcome

QUORUM = "0 robots online (none), expected at least 1; see `cloud-server robots list fleet`"


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    monkeypatch.setattr(following.time, "sleep", lambda _: None)


def followed(*open_rounds):
    """Return what is said when the server tells of these open rounds, one at each look."""
    run = Run(id="a", rounds=3, started_at=1.0, state="running")
    looks = [{**run.as_json(), "open_round": one} for one in open_rounds]
    looks.append({**run.as_json(), "state": "finished", "open_round": None})

    class Server:
        def run(self, _):
            return looks.pop(0)

    said = []
    follow(Server(), looks.pop(0), said.append)
    return said


def waiting(seconds, awaited=("r1", "r2"), online=("r2",), round=1, waits=""):
    progress = RoundProgress(
        run="a", round=round, asked=3, answered=1, good=1, began=1000.0, deadline=9000.0,
        awaited=awaited, waits=waits,
    )  # fmt: skip
    return progress.at(1000.0 + seconds, online).as_json()


def test_for_whom_a_round_waits_and_how_long_is_told_soon_and_then_ever_more_seldom():
    assert followed(*(waiting(seconds) for seconds in range(7200))) == [
        f"round 1 waits since {age} for r1 (offline), r2"
        for age in ("30 s", "60 s", "2 min", "4 min", "8 min", "16 min", "32 min", "64 min")
    ]


def test_a_quick_round_and_one_that_waits_for_nobody_tell_nothing():
    assert followed(waiting(29.9), waiting(500.0, awaited=())) == []


def test_the_next_round_begins_to_count_anew():
    assert followed(waiting(31.0), waiting(31.0, round=2), waiting(40.0, round=2)) == [
        "round 1 waits since 31 s for r1 (offline), r2",
        "round 2 waits since 31 s for r1 (offline), r2",
    ]


def test_why_nobody_is_asked_is_told_at_once_and_however_often_it_changes_ever_more_seldom():
    robots = (waiting(seconds, (), (), waits=f"{seconds % 7} online") for seconds in range(200))

    assert followed(*robots) == [
        "round 1 waits: 0 online",
        "round 1 waits since 30 s: 2 online",
        "round 1 waits since 60 s: 4 online",
        "round 1 waits since 2 min: 1 online",
    ]


def test_very_many_awaited_robots_are_one_line():
    (line,) = followed(waiting(40.0, [f"r{n:02}" for n in range(13)], ()))

    assert line.endswith("r10 (offline), r11 (offline), and 1 more")


def test_on_a_terminal_the_bar_says_it_all_the_time(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # stderr counts as a terminal
    monkeypatch.setenv("COLUMNS", "120")

    followed(*[waiting(45.0, ["r[red]"])] * 2)

    assert "round 1 waits since 45 s for r[red] (offline)" in capsys.readouterr().err


def closed(**outcomes):
    robots = tuple(
        RobotRecord(name=name, site="hall", outcome=outcome) for name, outcome in outcomes.items()
    )
    return RoundRecord(run="a", round=2, version=5, seconds=3.0, robots=robots, metrics={})


def test_whoever_is_missing_in_a_round_is_named_with_the_reason_and_equals_together():
    record = closed(
        r1=ACCEPTED, r2=NO_REPLY, r3=Outcome("failed", "disk full"), r4=NO_REPLY,
        r5=Outcome("refused", "head/kernel holds NaN " + "x" * 300),
    )  # fmt: skip

    line, missing = round_lines(record.as_json())

    assert line == "round 2: 1/5 robots, 3.0 s, held-out not measured"
    assert missing == (
        "without r3 (failed: disk full); r5 (refused: head/kernel holds NaN ...); "
        "r2, r4 (no reply by the deadline)"
    )


def test_many_reasons_are_one_short_line():
    odd = {f"r{n:03}": Outcome("failed", f"reason {n} " + "x " * 150) for n in range(90)}

    _, missing = round_lines(closed(a=ACCEPTED, b=NOT_REACHED, **odd).as_json())

    assert missing.endswith("; and 87 more")
    assert len(missing) < 500


def test_an_evaluation_shows_its_measures_apart_from_what_it_counts(capsys):
    metrics = {"accuracy": 0.5, "held_out": 30.0, "left_out_unlabelled": 7.0, "unreadable": 0.0}
    robot = RobotRecord(
        name="r1", site="hall", outcome=ACCEPTED, num_examples=30, metrics=metrics,
        label_counts={"clear": 150},
    )  # fmt: skip
    record = RoundRecord(
        run="a", round=1, version=3, seconds=1.0, robots=(robot,), metrics={"accuracy": 0.5},
        label_counts={"clear": 150, "blocked": 0},
    )  # fmt: skip

    show_evaluation({"measured": record.as_json()})

    table, _, lines = capsys.readouterr().out.partition("version 3, ")
    assert "held-out examples ┃ accuracy ┃\n" in table
    assert "unlabelled" not in table
    assert lines.splitlines() == [
        "mean over examples: accuracy 0.500",
        "examples of robots, by label: clear 150, blocked 0",
        "left out by robots: 7 without a label",
        "WARNING: no robot of this round has examples of blocked, so the model cannot learn that",
    ]


def test_a_round_with_everybody_has_nothing_to_add():
    assert len(list(round_lines(closed(r1=ACCEPTED).as_json()))) == 1


def test_the_clusters_of_sites_are_told_after_their_round():
    record = replace(
        closed(r1=ACCEPTED), clusters={"hall-1": 1}, site_notes=("site x keeps its model: why",)
    )

    assert list(round_lines(record.as_json()))[1:] == [
        "models of sites, in 1 cluster: hall-1",
        "site x keeps its model: why",
    ]


def test_of_a_round_whose_robots_are_not_held_the_numbers_are_told():
    robots = {f"r{n}": ACCEPTED if n else NO_REPLY for n in range(MAX_ROBOTS + 1)}
    run = Run(id="a", rounds=3, started_at=1.0, state="running")
    run.add(closed(**robots).as_json())

    line, missing = round_lines(run.closed[0])

    assert line.startswith(f"round 2: {MAX_ROBOTS}/{MAX_ROBOTS + 1} robots")
    assert missing == "without 1 no reply"
