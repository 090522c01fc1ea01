from dataclasses import replace

import pytest

from cloud_server.monitoring.fleet_status import FleetStatus
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.monitoring.status_words import names, tell
from cloud_server.monitoring.totals import HistoryTotals
from cloud_server.rollout.decide import Member
from cloud_server.rollout.progress import RolloutStatus
from cloud_server.rounds.progress import OpenRoundStatus
from cloud_server.runs.run_store import Run
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.sums.sums_store import ClosedForm
from cloud_server.state.words import NAMED
from fleet_model.protocol.outcome import (
    ACCEPTED,
    NO_REPLY,
    NOT_ADMITTED,
    NOT_REACHED,
    Outcome,
    parse_outcome,
)


def robot(name="r1", state="approved", **more):
    return RobotStatus(
        **{
            "name": name, "site": "hall", "state": state, "reason": "", "labels": (),
            "fingerprint": "SHA256:abc", "online": True, "last_seen_s": 1.0, "active_version": 1,
            "offenses": 0, "verdict": "", "report": None, **more,
        }
    )  # fmt: skip


def told(**more):
    nothing = FleetStatus(
        robots=[], waiting=[], runs=[], channels={}, open_round=None, totals=HistoryTotals()
    )
    return tell(replace(nothing, **more))


def last_round(late=0, **outcomes):
    robots = tuple(
        RobotRecord(name=n, site="hall", outcome=parse_outcome(o)) for n, o in outcomes.items()
    )
    record = RoundRecord(
        run="a", round=3, version=8, seconds=12.34, robots=robots, metrics={}, late=late
    )
    return {"totals": HistoryTotals(last=record)}


def test_a_server_on_which_nothing_happened_has_nothing_to_tell():
    assert told(robots=[robot()]) == []


def staged(state="advancing", members=(), **more):
    fields = {
        "channel": "stable", "state": state, "why": "the reason", "since_s": 5.0, "open": 1,
        "groups": ("10%", "100%"), "threshold": 0.2, "wait_s": 0.0, "present": 5, "next": 7,
        "fallback": 8, "members": members, "wants": {one.name: 5 for one in members},
    }  # fmt: skip
    return RolloutStatus(**{**fields, **more})


def test_a_rollout_is_told_with_what_it_waits_for():
    members = [
        Member("r1", 0, True, True, "confirmed"), Member("r2", 0, True, True, "trying"),
        Member("r3", 0, False, False, "waiting"), Member("r4", 1, True, False, "waiting"),
    ]  # fmt: skip
    assert told(rollouts=[staged(members=members)]) == [
        "rollout of version 7 on channel stable goes on, 1 of 2 groups (10%, 100%) open since 5 s "
        "(2 waiting, 1 trying, 1 confirmed, 0 failed): the reason",
        "rollout of version 7 on channel stable waits for r2, r3 (away)",
    ]


def test_a_halted_rollout_says_why_and_how_it_ends():
    (line,) = told(rollouts=[staged("halted")])
    assert line.startswith("WARNING: rollout of version 7 on channel stable is HALTED since 5 s")
    assert "the reason. To take it back: `cloud-server rollout abort DIR --channel stable`" in line


def test_what_came_of_a_rollout_is_told():
    (line,) = told(rollouts=[staged("complete")])
    assert line == "rollout of version 7 on channel stable is complete since 5 s: the reason"
    (line,) = told(rollouts=[staged("aborted")])
    assert line.endswith("(the reason): all robots get version 5 again, as version 8")
    robots = [robot(active_version=8)]
    assert len(told(rollouts=[staged("aborted")], channels={"stable": 5}, robots=robots)) == 1
    assert len(told(rollouts=[staged()], channels={"stable": 5}, robots=robots)) == 2


def test_sites_with_a_version_of_their_own_and_robots_that_keep_another_site_are_told():
    moved = robot("r2", report={"models_site": "yard"})
    assert told(assigned={"stable/sites/hall": 4}, channels={"stable": 5}, robots=[moved]) == [
        "robots of site hall on channel stable get version 4, by `cloud-server models assign`",
        "robot r2 gets models by site yard, which it was told first, and not by site hall: on the "
        "robot, `edge-agent site hall`",
    ]
    newest = robot(active_version=6)
    assert (
        len(told(assigned={"stable/sites/hall": 6}, channels={"stable": 5}, robots=[newest])) == 1
    )


def test_what_is_missing_on_the_server_comes_before_everything():
    now = OpenRoundStatus(run="a", round=4, asked=5, answered=3, good=2, seconds_left=41.6)

    assert told(missing=["no checkpoint is left"], open_round=now)[0] == "no checkpoint is left"


def test_the_open_round_is_told_first():
    now = OpenRoundStatus(run="a", round=4, asked=5, answered=3, good=2, seconds_left=41.6)

    assert told(open_round=now, **last_round(r1="accepted"))[0] == (
        "run a round 4: 5 robots asked, 3 answered, 2 good updates, 42 s left"
    )


def test_the_open_round_says_for_whom_it_waits_and_how_long():
    now = OpenRoundStatus(
        run="a", round=4, asked=3, answered=1, good=1, seconds_left=41.6, seconds=2000.0,
        awaited=["r2", "r3"], offline=["r3"],
    )  # fmt: skip

    (line,) = told(open_round=now)

    assert line.endswith("42 s left; waits since 33 min for r2, r3 (offline)")


def test_a_round_that_nobody_was_asked_for_says_why_and_when_it_gives_up():
    why = "0 robots online (none), expected at least 1"
    now = OpenRoundStatus(
        run="a", round=1, asked=0, answered=0, good=0, seconds_left=250.0, seconds=50.0, waits=why
    )

    assert told(open_round=now) == [
        f"run a round 1 waits since 50 s and gives up in 4 min: {why}",
    ]


def test_the_same_is_said_once_of_all_robots_with_a_command_for_all():
    suspended = [robot(f"r{n:02}", "suspended", reason="3 {refused}") for n in range(20)]

    (line,) = told(robots=suspended)

    assert line.startswith("20 robots (r00, r01, r02,")
    assert ", and 8 more) are suspended: 3 {refused}; to let take part again: " in line
    assert line.endswith(" ".join(["approve DIR", *(f"r{n:02}" for n in range(20))]))


def test_robots_that_are_away_are_told_in_one_line_with_their_ages():
    away = [
        robot("r1", online=False, last_seen_s=1992.0),
        robot("r2", online=False, last_seen_s=None),
    ]

    assert told(robots=[*away, robot("r3", online=False, last_seen_s=5.0)]) == [
        "offline: r1 (seen 33 min ago), r2 (never seen)"
    ]


def test_the_last_round_says_who_was_accepted_and_why_the_others_were_not():
    first, *others = told(
        **last_round(
            late=2, r1="accepted", r2="accepted", r3=NO_REPLY, r4=NOT_REACHED, r5="busy: driving",
            r6="refused: head/kernel holds NaN", r7="no space left",
            r8=Outcome("offline", " within 120 s"), r9=NOT_ADMITTED,
        )
    )  # fmt: skip

    assert first == (
        "run a round 3 closed in 12.3 s with version 8: accepted r1, r2; busy r5; "
        "no reply from r3; gone offline r8; suspended, revoked or forgotten at work r9; "
        "not reached r4; 2 updates came too late"
    )
    assert others == ["robot r6: refused: head/kernel holds NaN", "robot r7: failed: no space left"]


def test_an_update_that_came_too_late_is_no_silence():
    first, late = told(**last_round(late=1, r1="accepted", r2="late: its update is 3 versions old"))

    assert first.endswith("with version 8: accepted r1; 1 updates came too late")
    assert late == "robot r2: late: its update is 3 versions old"


def test_a_robot_whose_examples_do_not_all_count_is_named():
    words = ", but 1000000000 examples count as 10000"
    robot = RobotRecord(name="r1", site="hall", outcome=Outcome("accepted", words))
    given = last_round(r2="accepted")["totals"].last
    record = replace(given, robots=(robot, *given.robots))

    assert told(totals=HistoryTotals(last=record))[1:] == [
        "accepted, but not in full: r1 (1000000000 examples count as 10000)"
    ]


def test_how_many_examples_the_robots_have_of_each_label_is_told_and_which_has_none():
    record = replace(last_round(r1="accepted")["totals"].last, label_counts={"clear": 9, "up": 0})

    assert told(totals=HistoryTotals(last=record))[1:3] == [
        "examples of robots, by label: clear 9, up 0",
        "WARNING: no robot of this round has examples of up, as far as they tell (1 do not: update "
        "their agents), so the model cannot learn that",
    ]


def test_which_sites_are_together_and_what_there_is_to_know_of_them_is_told():
    last = last_round(r1="accepted")["totals"].last
    clusters = {"hall-1": 1, "hall-2": 2, "hall-3": 1}
    record = replace(last, clusters=clusters, site_notes=("site x keeps its model: why",))

    assert told(totals=HistoryTotals(last=record))[1:3] == [
        "models of sites, in 2 clusters: hall-1, hall-3 | hall-2",
        "site x keeps its model: why",
    ]


def test_a_mean_is_shown_with_the_range_over_robots_behind_it():
    record = replace(
        last_round(r1="accepted")["totals"].last,
        metrics={"accuracy_after": 0.97, "loss_after": 0.1},
        spread={"accuracy_after": (0.167, 0.99), "loss_after": (0.1, 0.1)},
    )

    assert told(totals=HistoryTotals(last=record))[1:] == [
        "held-out, mean and range over robots: accuracy_after 0.970 (0.167 to 0.990), "
        "loss_after 0.100"
    ]


def test_why_a_run_failed_is_told():
    run = Run(id="b", rounds=3, state="failed", error="2 robots online, expected 3", started_at=0)

    assert told(runs=[run]) == ["run b failed: 2 robots online, expected 3"]


def test_a_run_that_outlived_a_server_is_told_while_it_is_the_last():
    first, last = (Run(id=run, rounds=3, state="finished", started_at=0) for run in "ab")

    assert told(runs=[first], taken_up={"a": 1}) == [
        "run a was taken up again after round 1: the server had ended in the middle of it"
    ]
    assert told(runs=[first, last], taken_up={"a": 1}) == []


def test_a_reply_that_came_twice_is_told_with_its_robot():
    assert told(repeated={"r1": 2}) == [
        "replies that came again, which count once at most, since the server started: r1 (2)"
    ]


def test_a_run_that_ended_well_needs_no_words():
    assert told(runs=[Run(id="b", rounds=3, state="finished", started_at=0)]) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (robot(state="suspended", reason="3 refused updates in a row"), "3 refused updates"),
        (robot(state="suspended"), "robots approve DIR r1"),
        (robot(state="pending"), "waits for approval: cloud-server robots approve DIR r1"),
        (robot(offenses=2, verdict="run a round 3: refused: NaN"), "2 refused updates in a row"),
        (
            robot(report={"not_installed": "manifest.json is of protocol 3: update the agent"}),
            "does not run the newest model: manifest.json is of protocol 3: update the agent",
        ),
    ],
)
def test_a_robot_that_needs_a_person_is_named_with_what_to_do(given, words):
    (line,) = told(robots=[given])

    assert line.startswith("robot r1")
    assert words in line


@pytest.mark.parametrize("given", [robot(), robot(state="revoked", reason="stolen")])
def test_a_robot_that_needs_nobody_is_not_named(given):
    assert told(robots=[given]) == []


def test_unknown_keys_are_told_with_the_command_that_admits_them_but_only_a_few():
    keys = [robot("", "waiting", reason=f"cloud-server robots add {n}") for n in range(100)]

    lines = told(waiting=keys)

    assert "SHA256:abc" in lines[0]
    assert "cloud-server robots add 0" in lines[0]
    assert len(lines) == 6
    assert lines[-1] == "95 more unknown keys ask to take part"


def test_thousands_of_names_fit_into_a_line():
    line = names(f"r{number:04d}" for number in range(1000))

    assert line.startswith("r0000, r0001")
    assert line.endswith(f"and {1000 - NAMED} more")


def test_thousands_of_reasons_are_cut():
    lines = told(**last_round(**{f"r{n}": "refused: NaN" for n in range(1000)}))

    assert len(lines) == NAMED + 2
    assert "988 more" in lines[-1]


def test_a_robots_words_cannot_write_over_the_screen():
    _, line = told(**last_round(r1="\x1b[2J\nrobot r2: accepted"))

    assert line == r"robot r1: failed: \x1b[2J\nrobot r2: accepted"


def test_what_robots_left_out_and_doubtful_scores_are_told_after_the_round():
    robot = RobotRecord(
        name="r1", site="hall", outcome=ACCEPTED, num_examples=40,
        metrics={"held_out": 4.0, "left_out_unlabelled": 12.0},
    )  # fmt: skip
    record = replace(last_round()["totals"].last, robots=(robot,))

    assert told(totals=HistoryTotals(last=record))[1:] == [
        "left out by robots: 12 without a label",
        "WARNING: fewer than 20 held-out examples, so scores say little: r1 (4 held-out examples)",
    ]


def tried(name, version, state, why="", **about):
    trial = {"version": version, "state": state, "why": why, **about}
    return robot(name, report={"trial": trial, "not_installed": about.get("told", "")})


def test_who_has_the_newest_model_and_who_refused_or_gave_it_back_is_told_with_the_numbers():
    numbers = {"measure": "accuracy", "before": 0.9, "after": 0.5, "running": 6, "examples": 40}
    words = "version 7 is refused: accuracy 0.500, 0.900 with version 6, on 40 held-out examples"
    robots = [
        tried("a", 7, "confirmed"),
        tried("b", 7, "confirmed"),
        tried("c", 6, "confirmed"),
        tried("d", 7, "probation"),
        tried("e", 7, "refused", "worse", told=words, **numbers),
        tried("f", 7, "back", "hung"),
        tried("g", 7, "back", "of a newer agent"),
        robot("h"),
    ]
    assert told(robots=robots) == [
        "version 7 is confirmed by a, b",
        "version 7 is on probation on d",
        "WARNING: version 7 is refused by e (accuracy 0.500, 0.900 with version 6, on 40 held-out "
        "examples)",
        "WARNING: version 7 is given back by f (it did not answer in time), g (of a newer agent)",
    ]


def test_why_a_model_could_not_even_be_fetched_is_told_beside_an_older_trial():
    words = "No space left on device"
    assert told(robots=[tried("a", 6, "confirmed", told=words)]) == [
        f"robot a does not run the newest model: {words}",
        "version 6 is confirmed by a",
    ]


def test_robots_of_another_server_with_the_same_keys_are_named():
    robots = [robot("a", active_version=57), robot("b", active_version=41), robot("c")]
    robots.append(robot("d", active_version=None))
    assert told(robots=robots, channels={"stable": 40, "canary": 41}) == [
        "WARNING: of a version that this server never made, its newest is 41: a (version 57); "
        "another server with the same keys lives, or this directory was copied back without "
        "`cloud-server restore`"
    ]
    assert told(robots=robots, channels={"stable": 57}) == []
    assert told(robots=robots, channels={}) == []


def test_a_head_of_sums_is_told_with_who_is_not_in_it():
    made = ClosedForm(
        version=4, method="ridge", strength=1.0, robots=("r1", "r3"), left_out={"r2": "it lies"}
    )
    assert told(closed_form=made) == [
        "version 4 is a head in closed form (ridge): 2 robots",
        "sums of r2 are left out: it lies",
    ]
