"""Profiles as replies: checked, kept by the real loop and journal, no weights changed."""

from dataclasses import replace

import numpy as np
import pytest
from timed_robots import CHECKS, REQUEST, START, Robots, outcomes, update

from cloud_server.profiles.reply import check_profile, profile_kind, require_profiles
from cloud_server.profiles.store import ProfileStore
from cloud_server.rounds.reply_kinds import KINDS
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import SettingsError, UpdateError
from fleet_model.profiles.profile import GROUP, Group, SourceProfile, pack_profile
from fleet_model.types import PROFILE


def told(records=20, **changes):
    whole = Group(records=records, mean=np.full(2, records, np.float32))
    tensors = pack_profile({"board": SourceProfile(whole=whole)})
    fields = {"kind": PROFILE, "weights": {}, "groups": {GROUP: tensors}, "num_examples": records}
    return update(**{**fields, "num_steps": 0, **changes})


def test_what_robots_tell_is_kept_by_the_version_they_were_asked_with(tmp_path):
    store = ProfileStore(tmp_path / "profiles")
    robots = Robots({"a": {"answer": told(25)}, "b": {"answer": told(40, groups={})},
                     "c": {"answer": told(30)}})  # fmt: skip
    checkpoint, record = robots.round(
        request=replace(REQUEST, kind=PROFILE),
        journal=DiskJournal(tmp_path / "journal"),
        kinds={**KINDS, PROFILE: profile_kind(store)},
    )
    assert (checkpoint.version, checkpoint.weights) == (START.version, START.weights)
    assert outcomes(record)["a"] == outcomes(record)["c"] == "accepted"
    assert "alone" in outcomes(record)["b"]
    found = store.of(START.version)
    assert {name: one["board"].whole.records for name, one in found.items()} == {"a": 25, "c": 30}
    assert record.metrics == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": {"w": np.zeros(3, np.float32)}}, "is the group 'profile' of tensors alone"),
        ({"groups": {}}, "is the group 'profile' of tensors alone"),
        ({"groups": {GROUP: {}}}, "has the tensors about and means"),
        ({"num_examples": 25}, "is of 20 records, and it counts 25"),
        ({"base_version": 6}, "based on version 6"),
    ],
)
def test_what_is_no_profile_is_refused(changes, words):
    with pytest.raises(UpdateError, match=words):
        check_profile(told(**changes), START, START.version, CHECKS)
    check_profile(told(), START, START.version, CHECKS)


def test_a_fleet_that_asks_for_noise_or_has_no_language_model_is_told(server_dir):
    private = ServerSettings(privacy={"mode": "central", "noise_multiplier": 1.0, "clip": 1.0})
    with pytest.raises(SettingsError, match=r"gives no noise to profiles"):
        require_profiles(private, server_dir)
    with pytest.raises(SettingsError, match="not by the workload 'image-classifier'"):
        require_profiles(ServerSettings(), server_dir)
