"""Whatever the server's files say, a robot takes what is signed, and keeps its model else.

The server is a real one; what an attacker would do to it is done to its files.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile

from cloud_server.robots.register import Register
from cloud_server.rollout.changes import Wish, abort, advance, begin, halt
from cloud_server.signing.keys import OfflineKeys, OnlineKeys
from cloud_server.signing.repository import Offline
from cloud_server.signing.signing import (
    offered,
    promote,
    rotate,
    sign,
    signed_store,
    take_offline,
)
from cloud_server.state.model_store import DirectoryStore
from edge_agent.cli.enroll import enroll
from edge_agent.link import answers, signed_models
from edge_agent.link.choosing.kept_site import KeptSite
from edge_agent.link.server_link import HttpsStore
from edge_agent.link.signed_models import SignedModels
from edge_agent.robot.settings import ExampleSettings, load_settings
from fleet_model.bundle import sha256_of
from fleet_model.errors import ConnectionFailed, StorageError, TrustError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.report import RobotReport, pack_report
from fleet_model.protocol.rollout import Stage, content_of
from fleet_model.protocol.routes import site_offer, target_of

MANIFEST = "manifest.json"


@pytest.fixture(scope="module")
def server(running_server):
    return running_server.server_dir


@pytest.fixture(autouse=True)
def restored(server, tmp_path):
    """Undo what a test does to the server's files; numbers go on."""
    kept = [server.store, server.secrets, server.kit]
    for folder in kept:
        shutil.copytree(folder, tmp_path / "kept" / folder.name)
    yield
    freeze(server)  # the running server signs and tidies nothing while files are put back
    for folder in kept:
        for file in folder.rglob("*"):
            if file.is_file() and file.name[0] != ".":
                file.unlink()
        shutil.copytree(tmp_path / "kept" / folder.name, folder, dirs_exist_ok=True)
    _frozen.close()
    _frozen_by.clear()
    sign(server, anew=True)


_frozen, _frozen_by = ExitStack(), []


def freeze(server):
    """Keep the running server from signing until the test ends: it would mend what is done."""
    if not _frozen_by:
        stream = _frozen.enter_context((server.store / ".signing.lock").open("a"))
        fcntl.flock(stream, fcntl.LOCK_EX)
        _frozen_by.append(stream)


def frozen_and_out_of_date(server):
    """Sign as three days ago, and freeze.

    The running server looks every minute whether what it signed still counts. Where it looks
    between the two, it has signed anew, and both are done once more.
    """
    for _ in range(20):
        sign(server, utc_now() - timedelta(days=3), anew=True)
        freeze(server)
        timestamp = Metadata.from_file(str(metadata(server, "timestamp"))).signed
        if timestamp.is_expired():
            return
        _frozen.close()
        _frozen_by.clear()
    raise AssertionError("the running server signed in between, twenty times")


class Robot:
    """One robot that looks; a new process each time, as after a start."""

    def __init__(self, server, folder, name):
        self.folder = folder / name
        line = enroll(server.kit, self.folder, ExampleSettings(), train=False)
        Register(server.robots).add(name, "hall", line)
        self.settings = load_settings(self.folder / "agent.toml", {})
        self.trust = self.settings.state / "trust"

    def look(self, channel="stable"):
        link = self.settings.server
        signed = SignedModels(self.trust, link.root, link.key)
        self.store = HttpsStore(self.settings.server, signed=signed)
        try:
            return self.store.latest(channel)
        finally:
            self.store.close()


@pytest.fixture
def keys(request, server, tmp_path, restored):
    """Let offline keys sign channel stable where a test asks for it; return the release key."""
    if getattr(request, "param", "online") == "online":
        return None
    made = OfflineKeys(tmp_path / "offline", lambda name: "a word of some length")
    take_offline(
        server, Offline([made.make("root-1")], made.make("release")), 1, "stable", "canary"
    )
    return made.load("release")


by_both = pytest.mark.parametrize("keys", ["online", "offline"], indirect=True)


@pytest.fixture
def robots(server, tmp_path, keys):
    made = []

    def make():
        name = f"r{tmp_path.name[-12:].strip('_0123456789').replace('_', '-')}{len(made)}"
        made.append(f"{name}{time.monotonic_ns() % 10**9}")
        return Robot(server, tmp_path, made[-1])

    return make


@pytest.fixture
def robot(robots):
    """A robot that has seen the signed model once.

    The running server may tell one look late that the test before has put its files back.
    """
    end = time.monotonic() + 60
    while (one := robots()).look().manifest.version != 1:
        assert time.monotonic() < end
        time.sleep(0.2)
    return one


def metadata(server, role):
    files = (server.store / "metadata").glob(f"*{role}.json")
    return max(files, key=lambda file: int(file.name.partition(".")[0]) if "." in file.stem else 0)


def publish(server, version, release=None):
    """Let channel stable offer the same files under another number; `release` signs, if given."""
    from cloud_server.signing.signing import offer

    store = DirectoryStore(server.store)
    if version not in store.published():
        store.reissue(1, version, "2026-01-01T00:00:00")
    if release is None:
        offer(server, "stable", version)
    else:
        promote(server, "stable", version, release)


def role_of(role, keys):
    """Return the role that says what channel stable offers in the place of `online`."""
    return "stable" if keys and role == "online" else role


def forged(server, role, change, signer=None):
    """Change a role and sign it, by default with a key that nobody trusts."""
    freeze(server)
    file = metadata(server, role)
    made = Metadata.from_file(str(file))
    change(made.signed)
    made.sign(signer or CryptoSigner.generate_ed25519())
    name = file.name if role == "timestamp" else f"{made.signed.version}.{role}.json"
    made.to_file(str(file.with_name(name)))


def refused(robot, words, channel="stable"):
    with pytest.raises(TrustError, match=words) as caught:
        robot.look(channel)
    assert "the active model stays" in str(caught.value)
    assert "/" not in str(caught.value).replace("channel ", "")
    return str(caught.value)


# ----------------------------------------------------------------------------------- what is right


def test_a_robot_of_a_kit_begins_with_its_root_and_takes_what_is_signed(robot, server):
    root = (server.kit / "root.json").read_bytes()
    assert (robot.trust / "first.json").read_bytes() == root
    assert robot.look().content == offered(server)["stable"]
    publish(server, 7)
    assert robot.look().manifest.version == 7


def test_a_look_where_nothing_is_new_costs_no_refresh(server, robots, monkeypatch):
    robot = robots()
    robot.look()
    store = HttpsStore(
        robot.settings.server, signed=SignedModels(robot.trust, robot.settings.server.root)
    )
    first = store.latest("stable")
    before = store.bytes_down
    assert store.latest("stable") == first
    store.active_version = first.manifest.version  # it was installed
    assert store.latest("stable") == first
    assert store.bytes_down == before
    monkeypatch.setattr(signed_models, "REFRESH_S", 0)
    monkeypatch.setattr(store._signed, "_look_at", 0.0)
    assert store.latest("stable") == first
    assert before < store.bytes_down < before + 1000  # a timestamp, and that there is no newer root
    store.close()


def test_a_robot_enrolled_before_takes_the_first_root_that_it_sees_and_no_other(robots, server):
    robot = robots()
    (robot.folder / "root.json").unlink()
    assert robot.look().manifest.version == 1
    assert (robot.trust / "first.json").read_bytes() == (server.kit / "root.json").read_bytes()
    for folder in (server.store / "metadata", server.store / "targets", server.secrets):
        for file in folder.rglob("*"):
            if file.is_file() and (folder != server.secrets or "signing" in file.name):
                file.unlink()
    sign(server)  # the server with other keys
    refused(robot, r"timestamp\.json is not signed by the keys that this robot trusts")


def test_a_server_that_does_not_sign_is_followed_until_it_has_signed_once(robots, server, caplog):
    robot, signed = robots(), server.store / "metadata" / "timestamp.json"
    (robot.folder / "root.json").unlink()
    content = signed.read_bytes()
    freeze(server)
    signed.unlink()
    assert robot.look().manifest.version == 1
    assert "does not sign its models" in caplog.text
    signed.write_bytes(content)
    assert robot.look().manifest.version == 1
    signed.unlink()
    refused(robot, "does not sign its models any more")


def test_a_root_of_another_server_beside_the_robot_is_what_counts(robot, server, tmp_path):
    """As after enrolling again: an operator's hand is above what was seen."""
    other = signed_store(type(server)(tmp_path / "other"))
    other.sign(lambda: {"stable": b"x"}, utc_now())
    root = (tmp_path / "other/store/metadata/1.root.json").read_bytes()
    (robot.folder / "root.json").write_bytes(root)
    refused(robot, "is not signed by the keys")
    (robot.folder / "root.json").write_bytes((server.kit / "root.json").read_bytes())
    assert robot.look().manifest.version == 1


def test_three_new_keys_later_a_robot_that_was_away_follows(robot, server):
    for _ in range(3):
        rotate(server, utc_now())
    publish(server, 8)
    assert robot.look().manifest.version == 8
    assert json.loads((robot.trust / "root.json").read_bytes())["signed"]["version"] >= 4
    assert robot.look().manifest.version == 8


def test_a_channel_that_was_changed_and_not_signed_yet_is_signed_by_the_server(robot, server):
    """As after a publication that was killed; the robot does not wait for its next refresh."""
    store = HttpsStore(
        robot.settings.server, signed=SignedModels(robot.trust, robot.settings.server.root)
    )
    assert store.latest("stable").manifest.version == 1
    files = DirectoryStore(server.store)
    files.reissue(1, 21, "2026-01-01T00:00:00")
    files.offer("stable", 21)
    end = time.monotonic() + 240
    while store.latest("stable").manifest.version != 21:
        assert time.monotonic() < end
        time.sleep(0.1)
    store.close()


def test_what_the_channel_says_besides_counts_for_nothing(robot, server):
    """As a server would between a channel's file and its signature, or a thief without keys."""
    publish(server, 9)
    freeze(server)
    (server.store / "channels/stable.json").write_text('{"version": 1}')
    assert robot.look().manifest.version == 9


# -------------------------------------------------------------------------------------- the attacks


@by_both
def test_a_manifest_that_was_changed(robot, server, keys):
    publish(server, 10, keys)
    freeze(server)
    (server.store / "channels/stable.json").write_text('{"version": 1}')
    digest = sha256_of((server.store / "versions/000010.json").read_bytes())
    file = server.store / "targets/stable" / f"{digest}.{MANIFEST}"
    file.write_bytes(file.read_bytes().replace(b'"version": 10', b'"version": 11'))
    refused(robot, "not the one that was signed: its manifest was changed")
    file.unlink()
    refused(robot, "signed for channel stable is not on the server")


@by_both
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "online"])
def test_metadata_that_was_changed(robots, server, keys, role):
    role = role_of(role, keys)

    def later(signed):
        signed.expires += timedelta(days=300)

    forged(server, role, later)
    refused(robots(), rf"{role}\.json is not signed by the keys that this robot trusts")


@by_both
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "online"])
@pytest.mark.parametrize("damage", [b"", b"[]", b'{"signed": 1}', b"\xff" * 99])
def test_metadata_that_is_none(robots, server, keys, role, damage):
    role = role_of(role, keys)
    freeze(server)
    metadata(server, role).write_bytes(damage)
    refused(robots(), rf"{role}\.json is damaged")


@by_both
@pytest.mark.parametrize("role", ["snapshot", "targets", "online"])
def test_metadata_that_is_gone(robots, server, keys, role):
    """Without a timestamp the server says that it does not sign: see above."""
    role = role_of(role, keys)
    freeze(server)
    metadata(server, role).unlink()
    refused(robots(), rf"{role}\.json, by which models are signed, is not on the server")


@by_both
def test_endless_metadata(robots, server, keys):
    freeze(server)
    metadata(server, "snapshot").write_bytes(b" " * 300_000)
    refused(robots(), r"snapshot\.json is longer than 200000 bytes")
    metadata(server, "snapshot").write_bytes(b" " * 3_000_000)
    with pytest.raises(ConnectionFailed, match="more than 1000000 bytes"):
        robots().look()


@by_both
def test_slow_metadata(robots, keys, monkeypatch):
    robot = robots()
    monkeypatch.setattr(answers, "PATIENCE_S", -1000.0)
    with pytest.raises(ConnectionFailed, match="too slowly"):
        robot.look()


@by_both
def test_a_rollback_to_what_was_signed_before(robot, server, keys):
    old = (server.store / "metadata/timestamp.json").read_bytes()
    publish(server, 12, keys)
    assert robot.look().manifest.version == 12
    freeze(server)
    (server.store / "metadata/timestamp.json").write_bytes(old)
    (server.store / "channels/stable.json").write_text('{"version": 1}')
    refused(robot, r"timestamp\.json is older than what this robot has seen")


@by_both
def test_an_older_role_in_a_newer_state_is_mixed_and_matched(robot, server, keys):
    role = role_of("online", keys)
    old = metadata(server, role)
    publish(server, 13, keys)
    new = metadata(server, role)
    assert new != old
    freeze(server)
    new.write_bytes(old.read_bytes())
    refused(robot, rf"{role}\.json is older than what this robot has seen, or of another state")


@by_both
def test_newer_models_held_back_until_the_timestamp_is_out_of_date(robot, server, keys):
    frozen_and_out_of_date(server)
    # its number is above: this is what the robot would see three days from now
    said = refused(robot, r"timestamp\.json counted until 20.*by this robot's clock it is 20")
    assert "its clock is wrong, the server has not signed since, or somebody holds" in said


@by_both
def test_a_model_of_another_channel(robot, server, keys):
    freeze(server)
    shutil.copy(server.store / "channels/stable.json", server.store / "channels/beta.json")
    refused(robot, "on channel beta, and no model is signed for this channel", "beta")


def test_a_role_that_says_more_than_it_may(robots, server):
    """The online key signs what channels offer, and no names beside that."""
    (signer,) = OnlineKeys(server.secrets).load().values()

    def more(signed):
        signed.targets["stable/deep/manifest.json"] = TargetFile.from_data("x", b"", ["sha256"])
        signed.targets["../manifest.json"] = TargetFile.from_data("y", b"", ["sha256"])

    forged(server, "online", more, signer)
    robot = robots()
    robot.look()
    assert not [path for path in robot.folder.rglob("*") if "deep" in path.name]


def test_who_steals_the_server_changes_no_robot_on_a_channel_of_offline_keys(
    robot, server, tmp_path
):
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    offline = Offline([keys.make("root-1")], keys.make("release"))
    take_offline(server, offline, 1, "stable", "canary")
    assert robot.look().manifest.version == 1
    DirectoryStore(server.store).reissue(1, 30, "2026-01-01T00:00:00")
    promote(server, "stable", 30, keys.load("release"))
    assert robot.look().manifest.version == 30
    (stolen,) = OnlineKeys(server.secrets).load().values()
    freeze(server)
    DirectoryStore(server.store).reissue(1, 31, "2026-01-01T00:00:00")
    DirectoryStore(server.store).offer("stable", 31)
    assert robot.look().manifest.version == 30  # what the server says counts for nothing
    manifest = DirectoryStore(server.store).require(31)

    def another(signed):
        signed.version += 1
        path = "stable/manifest.json"
        signed.targets[path] = TargetFile.from_data(path, manifest, ["sha256"])

    forged(server, "stable", another, stolen)
    version = max(
        int(f.name.split(".")[0]) for f in metadata(server, "stable").parent.glob("*.stable.json")
    )
    snapshot = Metadata.from_file(str(metadata(server, "snapshot")))
    snapshot.signed.meta["stable.json"].version = version
    snapshot.signed.version += 1
    snapshot.sign(stolen)
    name = f"{snapshot.signed.version}.snapshot.json"
    snapshot.to_file(str(server.store / "metadata" / name))
    timestamp = Metadata.from_file(str(metadata(server, "timestamp")))
    timestamp.signed.snapshot_meta.version = snapshot.signed.version
    timestamp.signed.version += 1
    timestamp.sign(stolen)
    timestamp.to_file(str(server.store / "metadata" / "timestamp.json"))
    refused(robot, r"stable\.json is not signed by the keys that this robot trusts")


# ------------------------------------------------------------------------------ models of one site

HALL = site_offer("stable", "hall")


def let_offer(server, name, version):
    """Let a channel or a site on it offer the same files under another number."""
    store = DirectoryStore(server.store)
    if version not in store.published():
        store.reissue(1, version, "2026-01-01T00:00:00")
    store.offer(name, version)
    sign(server)


def test_a_robot_takes_what_is_signed_for_its_site_and_else_the_channels(robots, server):
    robot, other = robots(), robots()
    KeptSite(robot.trust).told("hall")
    KeptSite(other.trust).told("yard")
    let_offer(server, "stable", 40)
    let_offer(server, HALL, 41)
    assert robot.look().manifest.version == 41
    assert other.look().manifest.version == 40
    DirectoryStore(server.store).withdraw(HALL)
    sign(server)
    assert robot.look().manifest.version == 40


def test_a_robot_that_verifies_nothing_gets_the_same_by_the_servers_answer(robots, server):
    """Its site is the register's."""
    robot = robots()
    let_offer(server, HALL, 42)
    let_offer(server, site_offer("stable", "yard"), 43)
    store = HttpsStore(robot.settings.server)
    assert store.latest("stable").manifest.version == 42
    report = pack_report(RobotReport(models_site="yard"))  # it keeps another one
    assert store.latest("stable", report).manifest.version == 43
    store.close()


def test_a_server_moves_no_robot_to_the_model_of_another_site_by_words(robots, server, caplog):
    """Wrong site: what is signed for others counts for others."""
    robot = robots()
    store = HttpsStore(
        robot.settings.server, signed=SignedModels(robot.trust, robot.settings.server.root)
    )
    name, site = store.hello()
    assert (site, KeptSite(robot.trust).get()) == ("hall", "hall")
    let_offer(server, HALL, 44)
    let_offer(server, site_offer("stable", "yard"), 45)
    assert store.latest("stable").manifest.version == 44
    Register(server.robots).move(name, "yard")
    assert store.hello() == (name, "yard")
    assert store.latest("stable").manifest.version == 44
    KeptSite(robot.trust).change("yard")  # a person: `edge-agent site yard`
    assert store.latest("stable").manifest.version == 45
    store.close()


def test_a_manifest_of_another_site_in_the_place_of_its_own(robots, server):
    robot = robots()
    KeptSite(robot.trust).told("hall")
    let_offer(server, HALL, 46)
    let_offer(server, site_offer("stable", "yard"), 47)
    freeze(server)
    folder = server.store / "targets/stable/sites"
    (mine,), (others,) = (folder / "hall").glob("*.json"), (folder / "yard").glob("*.json")
    shutil.copy(others, mine)
    (server.store / "channels/stable/sites/hall.json").write_text('{"version": 47}')
    refused(robot, "channel stable is not the one that was signed: its manifest was changed")


def test_who_steals_the_server_assigns_no_site_on_a_channel_of_offline_keys(
    robots, server, tmp_path
):
    robot = robots()
    KeptSite(robot.trust).told("hall")
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    offline = Offline([keys.make("root-1")], keys.make("release"))
    take_offline(server, offline, 1, "stable", "canary")
    (stolen,) = OnlineKeys(server.secrets).load().values()
    manifest = DirectoryStore(server.store).require(1)

    def assigned(signed):
        signed.targets[target_of(HALL)] = TargetFile.from_data(target_of(HALL), b"", ["sha256"])

    forged(server, "online", assigned, stolen)
    assert robot.look().content == manifest  # what the online role says of `stable` is not asked


def test_a_robot_follows_back_from_offline_keys_by_command(robot, server, tmp_path, monkeypatch):
    word = "a word of some length"
    keys = OfflineKeys(tmp_path / "usb", lambda name: word)
    offline = Offline([keys.make("root-1")], keys.make("release"))
    take_offline(server, offline, 1, "stable", "canary")
    assert robot.look().manifest.version == 1
    command = [sys.executable, "-m", "cloud_server.cli", "keys", "online", str(server.root)]

    def typed(*words, passphrase=word):
        done = subprocess.run(
            [*command, *words],
            env={**os.environ, "CLOUD_SERVER_PASSPHRASE": passphrase},
            capture_output=True,
            text=True,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    assert typed("--keys", str(tmp_path / "usb"), passphrase="another of some length")[0] == 2
    code, said = typed("--keys", str(tmp_path))
    assert (code, "has no root-*.key" in said) == (2, True)
    assert robot.look().manifest.version == 1
    code, said = typed("--keys", str(tmp_path / "usb"))
    assert (code, "the server's key signs everything" in said) == (0, True)
    assert robot.look().manifest.version == 1
    publish(server, 40)
    assert robot.look().manifest.version == 40
    state = json.loads((robot.trust / "root.json").read_bytes())["signed"]["roles"]["root"]
    assert state["threshold"] == 1
    code, said = typed("--keys", str(tmp_path / "usb"))
    assert (code, "no offline keys sign here" in said) == (2, True)


def test_a_robot_that_is_enrolled_anew_keeps_the_site_that_it_is_told_now(robot, server, tmp_path):
    KeptSite(robot.trust).told("hall")
    other = signed_store(type(server)(tmp_path / "other"))
    other.sign(lambda: {"stable": b"x"}, utc_now())
    root = (tmp_path / "other/store/metadata/1.root.json").read_bytes()
    (robot.folder / "root.json").write_bytes(root)
    refused(robot, "is not signed by the keys")
    assert KeptSite(robot.trust).get() == ""


def test_nothing_is_written_outside_of_the_robots_folder_and_nothing_is_left_aside(robot):
    names = {path.name for path in robot.trust.iterdir()}
    assert names == {
        "first.json", "root.json", "timestamp.json", "snapshot.json", "targets.json", "online.json",
    }  # fmt: skip


def test_a_disk_that_keeps_nothing_is_told_without_a_path(robots, tmp_path):
    robot = robots()
    robot.settings.state.write_text("a file")
    with pytest.raises(StorageError, match="what this robot trusts cannot be kept") as caught:
        robot.look()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["root.json", "timestamp.json", "snapshot.json", "targets.json", "online.json"]
)
@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_what_the_robots_disk_has_lost_is_fetched_again(robot, name, damage):
    file = robot.trust / name
    file.unlink() if damage is None else file.write_bytes(damage)
    assert robot.look().manifest.version == 1
    assert file.read_bytes() not in (b"", b"{")


# ------------------------------------------------------------------------------ a staged rollout

WISH = Wish(("50%", "site:yard", "100%"), 0.2, 3600.0)  # the running server takes no step of it


class InRollout:
    """Robots by the group that they are in, and a channel whose present version is 50."""

    def __init__(self, server, robots, key=None):
        let = DirectoryStore(server.store)
        for version in (50, 51):
            let.reissue(1, version, "2026-01-01T00:00:00")
        if key is None:
            let_offer(server, "stable", 50)
        else:
            promote(server, "stable", 50, key)
        self.server, self.key = server, key
        self.rollout = begin(server, "stable", 51, WISH, key)
        self.fallback = self.rollout.plan.fallback.version
        self.first, self.last = self.member(robots, 0), self.member(robots, 2)

    def member(self, robots, group):
        while True:
            robot = robots()
            line = (robot.folder / "robot.pub").read_text().strip()
            if self.rollout.group(line, "hall") == group:
                robot.line = line
                return robot

    def look(self, robot, active=50, site="hall"):
        """Return the version that a robot finds, and what one that verifies nothing is told."""
        KeptSite(robot.trust).change(site)
        link = robot.settings.server
        versions = []
        for signed in (SignedModels(robot.trust, link.root, link.key), None):
            store = HttpsStore(link, signed=signed)
            store.active_version = active
            report = pack_report(RobotReport(models_site=site))
            versions.append(store.latest("stable", report).manifest.version)
            store.close()
        assert versions[0] == versions[1]
        return versions[0]

    def sign_stage(self, stage, signer):
        """Sign a stage as somebody with the server's key would; all else stays."""
        freeze(self.server)
        folder, path = self.server.store / "metadata", "stable/stage.json"
        content = content_of(stage)
        file = self.server.store / "targets/stable" / f"{sha256_of(content)}.stage.json"
        file.write_bytes(content)
        online = Metadata.from_file(str(metadata(self.server, "online")))
        snapshot = Metadata.from_file(str(metadata(self.server, "snapshot")))
        timestamp = Metadata.from_file(str(metadata(self.server, "timestamp")))
        online.signed.targets[path] = TargetFile.from_data(path, content, ["sha256"])
        for one in (online, snapshot, timestamp):
            one.signed.version += 1
        snapshot.signed.meta["online.json"].version = online.signed.version
        timestamp.signed.snapshot_meta.version = snapshot.signed.version
        for role, one in (("online", online), ("snapshot", snapshot)):
            one.sign(signer)
            one.to_file(str(folder / f"{one.signed.version}.{role}.json"))
        timestamp.sign(signer)
        timestamp.to_file(str(folder / "timestamp.json"))


@pytest.fixture
def release(server, tmp_path):
    """The offline key of channel stable."""
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    key = keys.make("release")
    take_offline(server, Offline([keys.make("root-1")], key), 1, "stable", "canary")
    return key


@pytest.fixture(params=["online", "offline"])
def rollout(request, server, robots):
    key = None if request.param == "online" else request.getfixturevalue("release")
    return InRollout(server, robots, key)


def test_each_group_finds_the_version_when_it_is_open_and_not_before(rollout, server):
    first, last = rollout.first, rollout.last
    assert (rollout.look(first), rollout.look(last), rollout.look(last, site="yard")) == (
        51,
        50,
        50,
    )
    advance(server, "stable")
    assert (rollout.look(first), rollout.look(last), rollout.look(last, site="yard")) == (
        51,
        50,
        51,
    )
    advance(server, "stable")
    assert rollout.look(last) == 51
    advance(server, "stable")
    assert (rollout.look(first), rollout.look(last)) == (51, 51)
    assert DirectoryStore(server.store).channels()["stable"] == 51


def test_halted_who_has_it_keeps_it_and_nobody_else_takes_it(rollout, server):
    halt(server, "stable")
    assert rollout.look(rollout.first, active=51) == 51
    assert rollout.look(rollout.first, active=50) == 50
    assert rollout.look(rollout.last) == 50


def test_aborted_all_find_the_fallback(rollout, server):
    abort(server, "stable")
    assert rollout.look(rollout.first, active=51) == rollout.fallback
    assert rollout.look(rollout.last) == rollout.fallback


def test_a_site_with_a_version_of_its_own_takes_no_part(robots, server):
    rollout = InRollout(server, robots)
    let_offer(server, HALL, 50)
    assert rollout.look(rollout.first) == 50


def test_who_steals_the_server_can_halt_advance_and_go_back_and_nothing_else(
    server, robots, release
):
    """With offline keys the plan is theirs; the stage is what the server may say."""
    rollout = InRollout(server, robots, release)
    plan, (stolen,) = rollout.rollout.plan, OnlineKeys(server.secrets).load().values()
    digest = rollout.rollout.digest
    rollout.sign_stage(Stage(plan=digest, open=3, state="advancing"), stolen)
    assert rollout.last.look().manifest.version == 51  # earlier than planned, and as planned
    rollout.sign_stage(Stage(plan=digest, open=4, state="advancing"), stolen)
    refused(rollout.last, "opens 4 groups, and the plan has 3")
    rollout.sign_stage(Stage(plan="0" * 64, open=3, state="complete"), stolen)
    refused(rollout.last, "is of another plan than the one that is signed")
    rollout.sign_stage(Stage(plan=digest, open=0, state="halted"), stolen)
    assert rollout.last.look().manifest.version == 50
    other = content_of(plan.model_copy(update={"groups": ("100%",)}))
    path = "stable/plan.json"

    def planned(signed):
        signed.version += 1
        signed.targets[path] = TargetFile.from_data(path, other, ["sha256"])

    folder = server.store / "targets/stable"
    (folder / f"{sha256_of(other)}.plan.json").write_bytes(other)
    forged(server, "online", planned, stolen)
    rollout.sign_stage(Stage(plan=sha256_of(other), open=1, state="advancing"), stolen)
    refused(rollout.last, "is of another plan than the one that is signed")


def test_a_robot_tells_how_far_the_rollout_is_and_which_group_it_is_in(robots, server):
    rollout = InRollout(server, robots)
    link, trust = rollout.last.settings.server, rollout.last.trust
    signed = SignedModels(trust, link.root, link.key)
    store = HttpsStore(link, signed=signed)
    store.latest("stable")
    assert signed.state()["rollout"] == (
        "version 51 in groups: advancing, 1 of 3 open, this robot is in group 3 (100%)"
    )
    before, store.active_version = store.bytes_down, 51  # installed by hand
    store.latest("stable")
    assert store.bytes_down > before  # what it is to follow may depend on that
    for _ in range(3):
        advance(server, "stable")
    store.latest("stable")
    assert signed.state()["rollout"] == ""
    store.close()


def test_a_plan_that_the_online_key_forges_in_the_role_of_the_channel(server, robots, release):
    rollout = InRollout(server, robots, release)
    (stolen,) = OnlineKeys(server.secrets).load().values()
    other = content_of(rollout.rollout.plan.model_copy(update={"groups": ("100%",)}))

    def planned(signed):
        path = "stable/plan.json"
        signed.targets[path] = TargetFile.from_data(path, other, ["sha256"])

    forged(server, "stable", planned, stolen)
    refused(rollout.last, r"stable\.json is not signed by the keys that this robot trusts")


def test_an_older_stage_shown_again(rollout, server):
    kept = (server.store / "metadata/timestamp.json").read_bytes()
    advance(server, "stable")
    assert rollout.look(rollout.first) == 51
    freeze(server)
    (server.store / "metadata/timestamp.json").write_bytes(kept)
    refused(rollout.first, r"timestamp\.json is older than what this robot has seen")


@pytest.mark.parametrize("name", ["plan", "stage"])
def test_a_plan_or_stage_that_was_changed_or_is_gone(rollout, server, name):
    freeze(server)
    # Two where the server has signed a moment ago: the one before it goes a little later.
    files = list((server.store / "targets/stable").glob(f"*.{name}.json"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes() + b" ")
    refused(rollout.first, rf"{name}\.json of the rollout on channel stable was changed")
    for file in files:
        file.unlink()
    refused(rollout.first, rf"{name}\.json of the rollout on channel stable is not on the server")


def test_another_model_in_the_place_of_the_plans(robots, server):
    """By somebody with the key of the role: the plan still names its own."""
    rollout = InRollout(server, robots)
    freeze(server)
    (signer,) = OnlineKeys(server.secrets).load().values()
    store, path = DirectoryStore(server.store), "stable/next/manifest.json"
    online = metadata(server, "online")
    made = Metadata.from_file(str(online))
    made.signed.targets[path] = TargetFile.from_data(path, store.require(50), ["sha256"])
    made.to_file(str(online))
    rollout.sign_stage(rollout.rollout.stage, signer)
    refused(rollout.first, "to end with version 51, and another model is signed for it")
