"""A server is lost some rounds after its backup; restored elsewhere, it leads its robots on."""

import json
import re

import pytest
from polled_admin import PolledAdmin

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import all_lines

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
ROBOTS = {"r1", "r2"}


def edited(server, old, new):
    text, count = re.subn(old, new, (server / "server.toml").read_text())
    assert count == 1
    (server / "server.toml").write_text(text)


def trained(server):
    """Return the versions that rounds have made here."""
    return [line.record().version for line in all_lines(ServerDirectory(server).history)]


def bits(server, version):
    weights = Checkpoints(ServerDirectory(server).checkpoints).load(version).weights
    return {name: tensor.tobytes() for name, tensor in weights.items()}


def closed(fleet):
    return fleet.admin().run(fleet.run)["rounds_closed"]


def stop(fleet):
    """End the run; return the version that it publishes, when both robots run it."""
    fleet.admin().stop_run(fleet.run)
    fleet.wait("the end", lambda: fleet.admin().run(fleet.run)["state"] == "stopped")
    version = fleet.admin().run(fleet.run)["published_version"]
    for name in ROBOTS:
        fleet.wait(
            f"version {version} on {name}",
            lambda name=name: fleet.status(name).get("active_version") == version,
        )
    return version


@pytest.fixture(scope="module")
def lost(fleet):
    """Two robots whose server went on after a backup, and is gone; they know where it may be."""
    fleet.everywhere = fleet.without_trials
    fleet.init()
    fleet.environment = {"FLEETLEARN_ROUNDS__KEEP_CHECKPOINTS": "1000"}
    fleet.new_port, fleet.backup = fleet.free_port(), fleet.root / "fleet.tar"
    moves_to = f'[network]\nmoves_to = "127.0.0.1:{fleet.new_port}"\n'
    edited(fleet.server, r"(?m)^\[network\]\n", moves_to)
    fleet.start_server(exports=False)
    for name in sorted(ROBOTS):
        fleet.add_robot(name, "--examples", fleet.bag(f"hall-1/{name}"))
    fleet.wait("both robots", lambda: fleet.online() == ROBOTS)
    fleet.run = fleet.admin().start_run(1000)["id"]
    fleet.wait("a round", lambda: closed(fleet) >= 1)
    done = fleet.type("cloud-server", "backup", fleet.server, fleet.backup, "--json")
    fleet.known = json.loads(done.stdout)["versions"][""]
    fleet.wait("another round", lambda: closed(fleet) > fleet.known)
    fleet.seen = stop(fleet)
    for name in ROBOTS:
        kept = fleet.root / "robots" / name / "state" / "server-address.json"
        fleet.wait("the announcement", kept.exists)
    other = fleet.admin().start_run(1000)["id"]  # robots are at work for it when the server dies
    fleet.wait("its first round", lambda: fleet.admin().run(other)["rounds_closed"] >= 1)
    process = fleet.processes.pop("server")
    process.kill()
    process.wait()
    fleet.old = fleet.server
    return fleet


def test_robots_come_back_and_no_number_is_used_twice(lost):
    assert 1 <= lost.known < lost.seen
    lost.server = lost.root / "restored"
    lost.type("cloud-server", "restore", lost.backup, lost.server)
    newest = Checkpoints(ServerDirectory(lost.server).checkpoints).newest()
    same = bits(lost.old, lost.known)
    assert bits(lost.server, lost.known) == bits(lost.server, newest) == same
    edited(lost.server, r'\nmoves_to = ".*"\n', "\n")
    edited(lost.server, rf"\nport = {lost.port}\n", f"\nport = {lost.new_port}\n")
    lost.type("cloud-server", "repair", lost.server)  # the kit, for robots that come later
    assert "fail" not in lost.type("cloud-server", "doctor", lost.server).stdout
    lost.port, lost.admin = lost.new_port, PolledAdmin(ServerDirectory(lost.server))
    lost.start_server(exports=False)

    lost.wait("both robots", lambda: lost.online() == ROBOTS)
    lost.wait("two rounds", lambda: closed(lost) >= lost.known + 2)  # the run goes on by itself
    published = stop(lost)
    old, new = trained(lost.old), trained(lost.server)
    assert old == list(range(1, len(old) + 1))
    assert len(old) > lost.seen
    assert new == [*old[: lost.known], *range(newest + 1, published + 1)]
    assert newest > 1000 > len(old)
    for name in ROBOTS:
        numbers = [one["version"] for one in lost.status(name)["publishes"]]
        assert numbers == sorted(set(numbers)), "each is higher than the one before"
        assert {lost.seen, published} <= set(numbers)
