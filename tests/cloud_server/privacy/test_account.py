"""Epsilon against dp-accounting, and what is charged."""

import pytest

from cloud_server.privacy import account
from cloud_server.privacy.account import FILE, Account, Spent, epsilon, read_ledger
from cloud_server.state.learning_settings import PrivacySettings
from fleet_model.errors import StorageError

dp_accounting = pytest.importorskip("dp_accounting")
pld = pytest.importorskip("dp_accounting.pld")
CENTRAL = PrivacySettings(mode="central", noise_multiplier=1.5, delta=1e-6)


def by_pld(events, delta, relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE):
    accountant = pld.PLDAccountant(neighboring_relation=relation)
    accountant.compose(dp_accounting.ComposedDpEvent(events))
    return accountant.get_epsilon(delta)


def gaussian(noise, rounds):
    return dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise), rounds)


def spent(mode="central", noise=1.5, **rounds):
    return Spent(run="a", mode=mode, noise_multiplier=noise, rounds=rounds)


def test_it_is_that_of_the_robot_that_was_in_most_rounds():
    told = epsilon([spent(r1=3, r2=8, r3=1)], 1e-6)
    assert told == pytest.approx(by_pld([gaussian(1.5, 8)], 1e-6), rel=1e-4)


def test_rounds_with_other_noise_compose_for_each_robot_alone():
    """r1: four rounds of 1.5 and five of 3; nobody was in more."""
    both = [spent(r1=4, r2=5), spent(noise=3.0, r1=5)]
    expected = by_pld([gaussian(1.5, 4), gaussian(3.0, 5)], 1e-6)
    assert epsilon(both, 1e-6) == pytest.approx(expected, rel=1e-4)


def test_of_local_noise_any_update_may_have_been_any_other():
    replaced = dp_accounting.NeighboringRelation.REPLACE_ONE
    expected = by_pld([gaussian(4.0, 3)], 1e-6, replaced)
    assert epsilon([spent("local", 4.0, r1=3)], 1e-6) == pytest.approx(expected, rel=1e-4)


def test_nothing_is_taken_off_for_sampling():
    """One of ten robots a round, for ten rounds: as dp-accounting has it without amplification."""
    assert epsilon([spent(**{f"r{n}": 1 for n in range(10)})], 1e-6) == pytest.approx(
        by_pld([gaussian(1.5, 1)], 1e-6), rel=1e-4
    )


def test_no_round_costs_nothing():
    assert epsilon([], 1e-6) == epsilon([spent()], 1e-6) == 0


def test_charges_last_and_add_up_over_runs_and_tries(tmp_path):
    first = Account(tmp_path, CENTRAL)
    first.charge("one", ["r1", "r2"])
    first.charge("one", ["r1"])  # tried again, with new noise
    again = Account(tmp_path, CENTRAL)
    again.charge("two", ["r1"])
    assert [(s.run, s.rounds) for s in read_ledger(tmp_path / FILE)] == [
        ("one", {"r1": 2, "r2": 1}),
        ("two", {"r1": 1}),
    ]
    told = again.told("two")
    assert told["epsilon"] == pytest.approx(by_pld([gaussian(1.5, 1)], 1e-6), rel=1e-4)
    assert told["epsilon_of_all_runs"] == pytest.approx(by_pld([gaussian(1.5, 3)], 1e-6), rel=1e-4)
    assert (told["mode"], told["delta"]) == ("central", 1e-6)


def test_a_damaged_ledger_is_never_taken_for_an_empty_one(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(StorageError, match=r"privacy\.json: the account .* is damaged; restore it"):
        Account(tmp_path, CENTRAL)


def test_a_full_disk_is_told_before_anything_is_seen(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(account, "write_durably", full)
    with pytest.raises(StorageError, match=r"cannot be written \(No space left on device\)"):
        Account(tmp_path, CENTRAL).charge("one", ["r1"])
