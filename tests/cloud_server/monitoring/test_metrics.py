from dataclasses import replace

import psutil
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from cloud_server.models.release_log import Release
from cloud_server.monitoring.fleet_status import FleetStatus
from cloud_server.monitoring.metrics import make_registry
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.monitoring.totals import HistoryTotals
from cloud_server.rollout.decide import Member
from cloud_server.rollout.progress import RolloutStatus
from cloud_server.rounds.progress import OpenRoundStatus
from cloud_server.runs.run_store import Run
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome

NOW_S = 1_700_000_000.0

REFUSED = Outcome("refused", "NaN")


def robot(name, state="approved", **more):
    return RobotStatus(
        **{
            "name": name, "site": "hall", "state": state, "reason": "", "labels": (),
            "fingerprint": "SHA256:abc", "online": False, "last_seen_s": None,
            "active_version": None, "offenses": 0, "verdict": "", "report": {"battery": 3}, **more,
        }
    )  # fmt: skip


def busy_status():
    totals = HistoryTotals()
    for seconds in (5.0, 500.0):
        totals.add(
            RoundRecord(
                run="a", round=1, version=2, seconds=seconds, late=1,
                metrics={"accuracy_after": 0.75},
                robots=(
                    RobotRecord(name="r1", site="h", outcome=ACCEPTED, weight=9, update_bytes=50),
                    RobotRecord(name="r2", site="h", outcome=REFUSED, update_bytes=50),
                    RobotRecord(name="r3", site="h", outcome=NO_REPLY),
                ),
            )
        )  # fmt: skip
    return FleetStatus(
        robots=[
            robot("r1", online=True, last_seen_s=10.0, active_version=4, offenses=2),
            robot("r2", "suspended"),
            robot("r3", "suspended"),
        ],
        waiting=[robot("", "waiting")],
        runs=[
            Run(id="a", rounds=1, state="failed", started_at=0),
            Run(id="b", rounds=3, state="running", started_at=1, rounds_closed=2),
        ],
        channels={"stable": 7, "canary": 8},
        open_round=OpenRoundStatus(
            run="b", round=3, asked=5, answered=3, good=2, seconds_left=41.5
        ),
        totals=totals,
        answered_again={"r1": 3, "r2": 1},
        answered_late={"r3": 5},
        repeated={"r1": 6},
        too_large={"r1": 7},
        misnamed={"r2": 8},
    )


@pytest.fixture
def scraped(server_dir):
    """Return a scraper: (metric, value of its first label) -> value, as Prometheus parses it."""

    def scrape(status):
        registry = make_registry(server_dir, lambda: status, now_s=lambda: NOW_S)
        text = generate_latest(registry).decode()
        return {
            (sample.name, *list(sample.labels.values())[:1]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    return scrape


def test_robots_are_counted_by_state_and_told_one_by_one(scraped):
    values = scraped(busy_status())

    assert values["fleetlearn_robots", "approved"] == 1
    assert values["fleetlearn_robots", "suspended"] == 2
    assert values["fleetlearn_robots", "revoked"] == 0
    assert values["fleetlearn_robots_online",] == 1
    assert values["fleetlearn_waiting_keys",] == 1
    assert values["fleetlearn_robot_online", "r1"] == 1
    assert values["fleetlearn_robot_online", "r2"] == 0
    assert values["fleetlearn_robot_last_seen_timestamp_seconds", "r1"] == NOW_S - 10
    assert ("fleetlearn_robot_last_seen_timestamp_seconds", "r2") not in values
    assert values["fleetlearn_robot_model_version", "r1"] == 4
    assert values["fleetlearn_robot_refused_in_a_row", "r1"] == 2


def tried(version, state):
    return {"trial": {"version": version, "state": state}}


def test_robots_are_counted_by_the_version_that_they_tried_and_what_became_of_it(server_dir):
    trials = (7, "refused"), (7, "refused"), (7, "confirmed"), (6, "back")
    robots = [robot(f"r{n}", report=tried(*trial)) for n, trial in enumerate(trials)]
    status = replace(busy_status(), robots=[*robots, robot("new"), robot("mute", report=None)])
    lines = generate_latest(make_registry(server_dir, lambda: status)).decode().splitlines()
    assert [line for line in lines if line.startswith("fleetlearn_robots_tried{")] == [
        'fleetlearn_robots_tried{state="refused",version="7"} 2.0',
        'fleetlearn_robots_tried{state="confirmed",version="7"} 1.0',
        'fleetlearn_robots_tried{state="back",version="6"} 1.0',
    ]


def test_what_the_gate_made_of_the_newest_version_is_told(scraped):
    withheld = Release(version=9, kind="withheld", at=1.0, by="run a")
    values = scraped(replace(busy_status(), release=withheld))
    assert values["fleetlearn_release", "withheld"] == 1
    assert values["fleetlearn_release", "published"] == 0
    assert values["fleetlearn_release_version",] == 9
    assert ("fleetlearn_release_version",) not in scraped(busy_status())


def test_closed_rounds_are_a_histogram_and_updates_are_counted_by_verdict(scraped):
    values = scraped(busy_status())

    assert values["fleetlearn_rounds_total",] == 2
    assert values["fleetlearn_round_seconds_bucket", "3.0"] == 0
    assert values["fleetlearn_round_seconds_bucket", "10.0"] == 1
    assert values["fleetlearn_round_seconds_bucket", "600.0"] == 2
    assert values["fleetlearn_round_seconds_bucket", "+Inf"] == 2
    assert values["fleetlearn_round_seconds_sum",] == 505
    for verdict, count in (("accepted", 2), ("refused", 2), ("no_reply", 2), ("failed", 0)):
        assert values["fleetlearn_updates_total", verdict] == count
    assert values["fleetlearn_updates_late_total",] == 2
    assert values["fleetlearn_updates_duplicate_total",] == 4
    assert values["fleetlearn_updates_expired_total",] == 5
    assert values["fleetlearn_updates_repeated_total",] == 6
    assert values["fleetlearn_updates_too_large_total",] == 7
    assert values["fleetlearn_updates_misnamed_total",] == 8
    assert values["fleetlearn_update_bytes_total",] == 200
    assert values["fleetlearn_examples_total",] == 18
    assert values["fleetlearn_held_out", "accuracy_after"] == 0.75


def test_the_open_round_the_newest_run_and_the_versions_are_told(scraped):
    values = scraped(busy_status())

    assert values["fleetlearn_open_round_asked",] == 5
    assert values["fleetlearn_open_round_answered",] == 3
    assert values["fleetlearn_open_round_good",] == 2
    assert values["fleetlearn_open_round_seconds_left",] == 41.5
    assert values["fleetlearn_run_state", "running"] == 1
    assert values["fleetlearn_run_state", "failed"] == 0
    assert values["fleetlearn_run_rounds_closed",] == 2
    assert values["fleetlearn_published_version", "stable"] == 7
    assert values["fleetlearn_published_version", "canary"] == 8


def test_the_process_and_its_disk_are_told(scraped):
    values = scraped(busy_status())

    assert values["fleetlearn_disk_free_bytes",] > 0
    assert 0 < values["process_resident_memory_bytes",] < psutil.virtual_memory().total
    assert values["fleetlearn_certificate_expiry_timestamp_seconds",] > 1.79e9


def test_a_rollout_is_told_by_state_and_by_robots(server_dir):
    members = [Member("r1", 0, True, True, "confirmed"), Member("r2", 0, True, False, "failed")]
    rollout = RolloutStatus(
        channel="stable", state="halted", why="", since_s=1.0, open=1, groups=("10%", "100%"),
        threshold=0.2, wait_s=0.0, present=5, next=7, fallback=8, members=members,
        wants={"r1": 7, "r2": 5},
    )  # fmt: skip
    status = replace(busy_status(), rollouts=[rollout])
    lines = generate_latest(make_registry(server_dir, lambda: status)).decode().splitlines()
    assert {
        'fleetlearn_rollout_state{channel="stable",state="halted"} 1.0',
        'fleetlearn_rollout_state{channel="stable",state="advancing"} 0.0',
        'fleetlearn_rollout_robots{channel="stable",outcome="failed"} 1.0',
        'fleetlearn_robot_wanted_version{channel="stable",robot="r1"} 7.0',
        'fleetlearn_robot_wanted_version{channel="stable",robot="r2"} 5.0',
        'fleetlearn_rollout_groups_open{channel="stable"} 1.0',
        'fleetlearn_rollout_groups{channel="stable"} 2.0',
        'fleetlearn_rollout_version{channel="stable"} 7.0',
    } <= set(lines)


def test_a_server_on_which_nothing_happened_can_be_scraped(scraped):
    values = scraped(
        FleetStatus(
            robots=[], waiting=[], runs=[], channels={}, open_round=None, totals=HistoryTotals()
        )
    )

    assert values["fleetlearn_rounds_total",] == 0
    assert ("fleetlearn_open_round_asked",) not in values


def test_a_damaged_register_is_an_error_and_no_zero(server_dir):
    def damaged():
        raise SettingsError("robots.json: damaged")

    with pytest.raises(SettingsError):
        generate_latest(make_registry(server_dir, damaged))
