"""What a cluster may know of an agent: its words without paths, and whose signature counts."""

import json
import shutil

import pytest

from cloud_server.signing.signing import sign
from edge_agent.kubernetes.observed import Observed, observe, verified_by
from fleet_model.kubernetes.robot_model import VerifiedBy


def trust(folder, roles, **files):
    """Write what a robot has verified: roles as (name, paths, terminating)."""
    folder.mkdir(exist_ok=True)
    delegated = [
        {"name": name, "paths": paths, "keyids": [f"key-of-{name}"], "terminating": ends}
        for name, paths, ends in roles
    ]
    files = {"root": {"version": 3}, "targets": {"delegations": {"roles": delegated}}, **files}
    for name, signed in files.items():
        (folder / f"{name}.json").write_text(json.dumps({"signed": signed}))
    return folder


def of(*channels):
    targets = {f"{channel}/manifest.json": {} for channel in channels}
    return {"targets": targets, "expires": "2027-01-01T00:00:00Z"}


STABLE, ONLINE = ("stable", ["stable/*", "stable/*/*/*"], True), ("online", ["*/*"], False)


def test_the_role_that_signs_the_channel_is_named(tmp_path):
    folder = trust(tmp_path / "t", [STABLE, ONLINE], stable=of("stable"), online=of("canary"))
    until = "2027-01-01T00:00:00Z"
    assert verified_by(folder, "stable") == VerifiedBy(
        role="stable", keys=["key-of-stable"], root_version=3, expires=until
    )
    assert verified_by(folder, "canary").role == "online"
    assert verified_by(folder, "other") is None


def test_a_version_for_one_site_comes_first(tmp_path):
    both = of("stable/sites/hall-1") | {"expires": "2028-01-01T00:00:00Z"}
    folder = trust(tmp_path / "t", [STABLE, ONLINE], stable=both)
    assert verified_by(folder, "stable", "hall-1").expires == both["expires"]
    assert verified_by(folder, "stable", "hall-2") is None
    loose = ("loose", ["*"], False)  # a star does not reach below a folder
    assert verified_by(trust(folder, [loose], loose=of("stable")), "stable") is None


def test_behind_a_role_that_ends_the_search_nobody_else_signs(tmp_path):
    folder = trust(tmp_path / "t", [STABLE, ONLINE], stable=of(), online=of("stable"))
    assert verified_by(folder, "stable") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"signed": 3}'])
def test_what_cannot_be_read_says_nothing(tmp_path, content):
    assert verified_by(tmp_path / "none", "stable") is None
    folder = trust(tmp_path / "t", [ONLINE], online=of("stable"))
    for name in ("root", "targets", "online"):
        before = (folder / f"{name}.json").read_text()
        (folder / f"{name}.json").write_text(content)
        assert verified_by(folder, "stable") is None
        (folder / f"{name}.json").write_text(before)
    assert verified_by(folder, "stable") is not None


def test_words_have_no_path_and_stay_on_their_line(robot):
    robot.writes(reason="/home/me/secret.crt: is\nnot there", not_installed="in '/data/x y' none")
    seen = observe(robot.state)
    assert "/home" not in seen.reason
    assert "\n" not in seen.reason
    assert "/data" not in seen.not_installed
    assert (seen.robot, seen.channel, seen.active_version) == ("r1", "stable", None)


def test_an_agent_that_never_ran_and_a_damaged_file(robot):
    assert observe(robot.state) == Observed()
    (robot.state / "status.json").write_text("{")
    seen = observe(robot.state)
    assert seen.state == ""
    assert "cannot be read" in seen.reason
    assert str(robot.state) not in seen.reason


def test_what_runs_the_model_is_told(robot):
    asked = {"asked": "auto", "accelerator": "cpu", "precision": "fp32", "litert": "2.3.0"}
    robot.writes(runtime=asked)
    assert observe(robot.state).engine == "LiteRT Interpreter"
    robot.writes(runtime={"asked": "other"})
    assert observe(robot.state).engine == ""


def test_the_last_trial_is_told(robot):
    robot.writes(trial={"version": 8, "state": "refused", "why": "hung"}, active_version=7)
    tried = observe(robot.state).tried
    assert (tried.version, tried.state) == (8, "refused")
    assert tried.reason == "it did not answer in time"
    robot.writes(trial={"version": "x"})
    assert observe(robot.state).tried is None


def test_what_a_real_server_signs_is_understood(server_dir, tmp_path):
    sign(server_dir)
    (tmp_path / "trust").mkdir()
    files = sorted(
        (server_dir.store / "metadata").glob("*.json"), key=lambda file: file.stat().st_mtime
    )
    for file in files:  # as a robot keeps them: by role, the newest
        shutil.copy(file, tmp_path / "trust" / f"{file.stem.rpartition('.')[2]}.json")
    found = verified_by(tmp_path / "trust", "stable")
    assert (found.role, found.root_version, len(found.keys)) == ("online", 1, 1)
    assert len(found.keys[0]) == 64
    assert found.expires > "2026"
    assert verified_by(tmp_path / "trust", "canary") is None
