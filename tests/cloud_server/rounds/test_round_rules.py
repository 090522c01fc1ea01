import pytest

from cloud_server.rounds.choosing import Selection
from cloud_server.rounds.round_rules import rules_of
from cloud_server.state.settings import RoundSettings
from fleet_model.errors import SettingsError


def test_the_rules_are_those_of_the_settings():
    settings = RoundSettings(robots="a, b", sites=("hall",), labels=("gpu",), query="battery > 5")

    rules = rules_of(settings)

    assert rules.selection == Selection(
        names=("a", "b"), sites=("hall",), labels=("gpu",), query="battery > 5"
    )
    for name in ("mode", "quorum", "target", "deadline_s", "wait_s", "max_staleness"):
        assert getattr(rules, name) == getattr(settings, name)


def test_a_round_that_asks_fewer_robots_than_it_needs_is_refused():
    with pytest.raises(
        SettingsError, match=r"rounds\.target is 2, expected 0 or at least .* \(3\)"
    ):
        rules_of(RoundSettings(target=2, quorum=3))


def test_buffered_rounds_refill_a_place_so_a_small_target_is_fine():
    assert rules_of(RoundSettings(mode="buffered", target=2, quorum=3)).target == 2
