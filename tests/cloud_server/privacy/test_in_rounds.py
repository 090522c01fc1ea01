"""What private rounds refuse, ask and charge."""

import sys

import pytest
from timed_robots import REQUEST, RULES, Robots, changed

from cloud_server.aggregation.aggregator import has
from cloud_server.aggregation.suited import suited_rule
from cloud_server.privacy.account import FILE, read_ledger
from cloud_server.privacy.in_rounds import (
    PrivateRun,
    private_checks,
    private_request,
    require_no_sums,
    with_privacy,
)
from cloud_server.privacy.private_mean import PrivateMean
from cloud_server.rounds.round_loop import QuorumError
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.version import PROTOCOL


def settings(mode, rule="fedavg", **sections):
    privacy = {"mode": mode, "clip": 0.5, "noise_multiplier": 2.0}
    return ServerSettings.model_validate(
        {"privacy": privacy, "aggregation": {"rule": rule}, **sections}
    )


def built(mode, rule="fedavg", **sections):
    chosen = settings(mode, rule, **sections)
    return with_privacy(suited_rule(chosen), chosen.privacy)


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_means_are_private_and_take_no_means_of_relays(rule):
    assert isinstance(built("central", rule), PrivateMean)
    assert not has(built("central", rule), "takes_means")
    assert not has(built("local", rule), "takes_means")
    assert has(built("off", rule), "takes_means")


def test_runs_that_begin_with_sums_are_refused():
    with pytest.raises(SettingsError, match="gives no noise to sums of features: train without"):
        require_no_sums(settings("local"))
    require_no_sums(settings("off"))


def test_without_the_accountant_nothing_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(SettingsError, match=r"pip install 'fleetlearn\[privacy\]', or set"):
        built("central")
    assert built("off")


def test_local_noise_is_asked_of_agents_that_know_it():
    asked = private_request(REQUEST, settings("local").privacy)
    assert (asked.config.private_clip, asked.config.private_noise) == (0.5, 2.0)
    assert asked.lowest_protocol == PROTOCOL
    for mode in ("off", "central"):
        assert private_request(REQUEST, settings(mode).privacy) is REQUEST


def test_no_update_is_cut_by_the_length_of_others_where_the_server_clips():
    checks = settings("off").checks
    assert private_checks(checks, settings("central").privacy).max_norm_ratio == 0
    assert private_checks(checks, settings("local").privacy) == checks


def test_a_central_round_is_charged_to_those_that_were_folded_in(tmp_path):
    run = PrivateRun(tmp_path, settings("central").privacy, "run")
    fleet = Robots({"r1": {}, "r2": {}})
    assert run.fleet(fleet) is fleet
    told = run.settle(["r1"])
    assert told["epsilon"] > 0
    assert read_ledger(tmp_path / FILE)[0].rounds == {"r1": 1}


def test_a_local_round_is_charged_to_all_that_are_asked_also_when_it_fails(tmp_path):
    """The server has seen r1's update, and may still see that of r2."""
    run = PrivateRun(tmp_path, settings("local").privacy, "run")
    robots = Robots({"r1": {}, "r2": {"answer": Outcome("failed", "no frames")}})
    charged = run.fleet(robots)
    rules = changed(RULES, quorum=2)
    with pytest.raises(QuorumError):
        Robots.round(_Both(charged, robots), rules)
    assert read_ledger(tmp_path / FILE)[0].rounds == {"r1": 1, "r2": 1}
    assert run.settle(["r1"])["epsilon"] > 0
    assert read_ledger(tmp_path / FILE)[0].rounds == {"r1": 1, "r2": 1}


def test_mode_off_says_and_writes_nothing(tmp_path):
    assert PrivateRun(tmp_path, settings("off").privacy, "run").settle(["r1"]) == {}
    assert list(tmp_path.iterdir()) == []


class _Both:
    """A charged fleet with the clock of the one behind it."""

    def __init__(self, charged, robots):
        self._charged, self.clock = charged, robots.clock

    def __getattr__(self, name):
        return getattr(self._charged, name)
