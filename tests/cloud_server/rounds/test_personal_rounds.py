"""Rounds in which some tensors stay on the robots: every rule folds the others alone."""

from dataclasses import replace

import numpy as np
import pytest
from timed_robots import CHECKS, REQUEST, RULES, Robots, update

from cloud_server.aggregation.aggregator import AGGREGATORS, build_aggregator
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import DiskJournal, MemoryJournal, OpenRound
from cloud_server.rounds.round_loop import QuorumError, run_round
from cloud_server.sites.in_rounds import with_starts
from cloud_server.sites.site_models import site_models
from cloud_server.sites.site_rule import SiteRule
from cloud_server.state.learning_settings import SiteSettings
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.protocol.version import FIRST_PROTOCOL
from fleet_model.types import Checkpoint

START = Checkpoint(
    version=7, weights={"w": np.zeros(3, np.float32), "own": np.full(2, 9, np.float32)}
)
ASKED = replace(REQUEST, checkpoint=START, personal=("own",))


def close(robots, rule="fedavg", request=ASKED):
    fleet = Robots(robots)
    return run_round(
        fleet,
        build_aggregator(rule, {}) if isinstance(rule, str) else rule,
        request,
        RULES,
        CHECKS,
        fleet.clock,
        MemoryJournal(),
        stop=lambda: False,
    )


# SCAFFOLD needs every tensor of a robot: the settings are refused (sites/in_rounds.py).
@pytest.mark.parametrize("rule", sorted(AGGREGATORS.keys() - {"scaffold"}))
def test_every_rule_folds_what_is_shared_and_the_rest_stays_as_it_was(rule):
    robots = {f"r{n}": {"answer": update(1.0)} for n in range(6)}
    checkpoint, record = close(robots, rule)

    assert {robot.outcome.kind for robot in record.robots} == {"accepted"}
    assert list(checkpoint.weights) == ["w", "own"]
    assert checkpoint.weights["own"].tobytes() == START.weights["own"].tobytes()
    assert (checkpoint.weights["w"] > 0).all()
    assert not [name for name in checkpoint.server_state if "own" in name]


def test_an_update_with_a_tensor_that_stays_on_robots_is_refused():
    everything = update(1.0, weights={"w": np.ones(3, np.float32), "own": np.ones(2, np.float32)})
    robots = {"all": {"answer": everything}, "r1": {"answer": update(1.0)}}
    with pytest.raises(QuorumError, match="unknown tensor own"):
        close(robots)
    lacks = update(1.0, weights={})
    with pytest.raises(QuorumError, match="lacks w"):
        close({"none": {"answer": lacks}, "r1": {"answer": update(1.0)}})


def test_agents_that_would_send_everything_are_not_asked():
    assert ASKED.lowest_protocol > FIRST_PROTOCOL
    assert replace(ASKED, personal=()).lowest_protocol == FIRST_PROTOCOL


def test_replies_that_lack_other_tensors_are_not_taken_up_again(tmp_path):
    """The operator has changed aggregation.personal while the server was down."""
    about = {"run": "run", "round": 1, "base_version": 7, "mode": "sync"}
    before = DiskJournal(tmp_path)
    before.write(OpenRound(**about))
    reply = update(1.0, weights=dict(START.weights))
    kept = Kept(ticket="t", robot="r1", site="hall", round=1, verdict=ACCEPTED, base_version=7)
    before.keep([(kept, reply)])
    again = DiskJournal(tmp_path)
    assert [one.robot for one in again.kept()] == ["r1"]
    again.write(OpenRound(**about, personal=("own",)))
    assert list(again.kept()) == []
    assert list(DiskJournal(tmp_path).kept()) == []
    assert DiskJournal(tmp_path).load().personal == ("own",)


def test_models_of_sites_have_what_is_shared_and_begin_with_the_rest_when_it_is():
    rule = SiteRule(build_aggregator("fedavg", {}), SiteSettings(enabled=True))
    robots = {f"r{n}": {"answer": update(1.0 + n), "site": f"s{n}"} for n in range(2)}
    first, _ = close(robots, rule)
    assert sorted(site_models(first).weights) == ["w"]
    assert first.weights["own"].tobytes() == START.weights["own"].tobytes()

    request = replace(ASKED, checkpoint=first, round=2)
    starts = with_starts(request, SiteSettings(enabled=True)).starts
    assert set(starts) == {"s0", "s1"}
    assert {name: sorted(own) for name, own in starts.items()} == {
        site: ["own", "w"] for site in starts
    }
    everything = {"w": np.ones(3, np.float32), "own": np.ones(2, np.float32)}
    robots = {
        f"r{n}": {"answer": update(weights=everything, base_version=8), "site": f"s{n}"}
        for n in range(2)
    }
    last, _ = close(robots, rule, replace(request, personal=()))
    np.testing.assert_array_equal(last.weights["own"], START.weights["own"] + 1)
