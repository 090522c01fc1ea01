"""The running server's steps, from what robots report to what is signed; and what it tells."""

import pytest

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.rollout.changes import Wish, begin
from cloud_server.rollout.members import members_of
from cloud_server.rollout.progress import rollout_statuses
from cloud_server.rollout.watch import RolloutWatch
from cloud_server.signing.assignments import assign
from cloud_server.signing.signing import sign
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles
from fleet_model.errors import BundleError
from fleet_model.protocol.proof import make_key, public_line, read_key
from fleet_model.protocol.report import RobotReport
from fleet_model.protocol.trial import TrialOutcome

NAMES = ("r1", "r2", "r3", "r4")


class World:
    """A server of four robots at two sites, whose clock is turned by hand."""

    def __init__(self, server_dir, keys, wait_s=0.0):
        self.server_dir, self.now_s = server_dir, 1000.0
        self.store = DirectoryStore(server_dir.store)
        for version in (2, 3):
            self.store.reissue(1, version, "2026-01-01")
        self.register = Register(server_dir.robots)
        for name, line in zip(NAMES, keys, strict=True):
            self.register.add(name, "hall" if name < "r3" else "yard", line)
        self.seen = LastSeen(server_dir.seen, lambda: self.now_s)
        sign(server_dir)
        begin(server_dir, "stable", 2, Wish(("site:hall", "100%"), 0.2, wait_s))
        self.watch = RolloutWatch(server_dir, self.register, self.seen, lambda: self.now_s)
        self.now_s = self.rollout().since_s

    def report(self, name, state="", active=1, version=2, channel="stable", **more):
        trial = TrialOutcome(version=version, state=state, **more) if state else None
        report = RobotReport(model_version=active, trial=trial)
        self.seen.looked(name, None, report, 2, "", channel)

    def rollout(self):
        return RolloutFiles(self.server_dir.store).read("stable")

    def look(self):
        self.watch.look()
        now = self.rollout()
        return now.state, now.open, now.over

    def members(self):
        offers = self.store.offers()
        return {m.name: m for m in members_of(self.rollout(), self.register, self.seen, offers)}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in NAMES:
        make_key(folder / name)
    return [public_line(read_key(folder / name).public_key()) for name in NAMES]


@pytest.fixture
def world(server_dir, keys):
    return World(server_dir, keys)


def test_it_goes_on_as_robots_confirm_and_ends_with_the_channel(world):
    for name in NAMES:
        world.report(name)
    assert world.look() == ("advancing", 1, False)
    world.report("r1", "confirmed", 2)
    world.report("r2", "probation", 2)
    assert world.look() == ("advancing", 1, False)
    world.report("r2", "confirmed", 2)
    assert world.look() == ("advancing", 2, False)
    assert world.look() == ("advancing", 2, False)
    world.report("r3", "confirmed", 2)
    world.report("r4", "confirmed", 2)
    assert world.look() == ("complete", 2, True)
    assert world.store.channels() == {"stable": 2}
    (told,) = rollout_statuses(world.store, world.register, world.seen)
    assert "is complete" in told.sentences()[0]


def test_it_is_halted_with_the_reason_of_the_robot(world, caplog):
    for name in NAMES:
        world.report(name)
    world.report("r1", "refused", 1, why="crashed")
    assert world.look() == ("halted", 1, False)
    why = world.rollout().why
    assert why.startswith("halted by itself: 1 of 1 robots that have decided failed")
    assert "r1 (it ended the process that tried it)" in why
    assert why in caplog.text
    assert world.rollout().failed == ("r1",)
    world.report("r2", "confirmed", 2)
    assert world.look() == ("halted", 1, False)
    (told,) = rollout_statuses(world.store, world.register, world.seen)
    assert told.wants == {"r1": 1, "r2": 2, "r3": 1, "r4": 1}
    assert told.as_json()["counts"] == {"waiting": 2, "trying": 0, "confirmed": 1, "failed": 1}


def test_it_waits_for_as_long_as_the_plan_wants(server_dir, keys):
    world = World(server_dir, keys, wait_s=100.0)
    world.report("r1", "confirmed", 2)
    world.report("r2", "confirmed", 2)
    assert world.look() == ("advancing", 1, False)
    world.now_s += 101
    assert world.look() == ("advancing", 2, False)


def test_who_takes_part(world):
    world.report("r1", channel="canary")
    world.report("r3")
    world.report("r4", "refused", 1, version=7)  # of another version
    assert set(world.members()) == {"r3", "r4"}  # r2 never asked
    world.register.revoke("r3", "lost")
    assert {n: (m.group, m.outcome) for n, m in world.members().items()} == {"r4": (1, "waiting")}
    assign(world.server_dir, "stable", "yard", 3)
    assert world.members() == {}


def test_a_robot_that_tells_no_trials_confirms_by_what_it_runs(world):
    world.report("r1", active=2)
    world.report("r2", active=1)
    members = world.members()
    assert (members["r1"].outcome, members["r2"].outcome) == ("confirmed", "waiting")
    world.now_s += 301
    assert not world.members()["r1"].alive


def test_a_damaged_file_is_told_once_and_looked_at_again(world, caplog):
    file = world.server_dir.store / "rollouts/stable.json"
    whole = file.read_bytes()
    file.write_bytes(b"{")
    world.watch.look()
    world.watch.look()
    assert caplog.text.count("rollouts stand still: ") == 1
    assert "stable.json: damaged; restore it from a backup, or remove it" in caplog.text
    with pytest.raises(BundleError, match="damaged"):
        rollout_statuses(world.store, world.register, world.seen)
    file.write_bytes(whole)
    world.report("r1", "confirmed", 2)
    world.report("r2", "confirmed", 2)
    assert world.look() == ("advancing", 2, False)
