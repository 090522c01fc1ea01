"""A version that a third of the robots can tell is bad is halted by itself in its first group.

Real agents and a real server over TLS; `make soak` has 20 robots, `make test` has 6.
"""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.append(str(Path(__file__).parents[1] / "edge_agent" / "models"))
import moody_workload
from moody_workload import TINY, bundle, labelled_frames

from cloud_server.robots.register import Register
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings
from edge_agent.cli.enroll import enroll
from edge_agent.robot.settings import ExampleSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Size(NamedTuple):
    """Of the whole or of the sample."""

    robots: int
    first: int  # of them, in the first group


SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
SIZE = Size(20, 9) if SOAK else Size(6, 3)
NAMES = [f"robot-{n:02d}" for n in range(SIZE.robots)]
FIRST, OTHERS = NAMES[: SIZE.first], NAMES[SIZE.first :]
CAN_TELL = NAMES[::3]  # they have labelled frames; the others have nothing to judge a model by
REFUSING = [name for name in FIRST if name in CAN_TELL]


@pytest.fixture(scope="module")
def story(fleet, new_server_dir):
    """Version 1 runs everywhere, version 2 is worse; see what the commands and the robots say."""
    server_dir = new_server_dir(fleet.server)
    fleet.port = load_settings(server_dir.settings, {}).network.port
    store = DirectoryStore(server_dir.store)
    store.publish(bundle(fleet.root, 1), "stable", TINY)
    fleet.everywhere = {
        "PYTHONPATH": str(moody_workload.site(fleet.root / "a" / "site")),
        "EDGE_AGENT_POLL__IDLE_S": "0.5",
        "EDGE_AGENT_INSTALL__PROBATION_S": "1",
        "EDGE_AGENT_INSTALL__TIMEOUT_S": "300",  # a busy machine is not the model's fault
        "EDGE_AGENT_INSTALL__SLOWER": "1000",
    }
    fleet.start_server()
    labelled_frames(fleet.root / "labels", 24)
    for name in NAMES:
        paths = (fleet.root / "labels",) if name in CAN_TELL else ()
        examples = ExampleSettings(paths=paths, held_out=0.5)
        line = enroll(server_dir.kit, fleet.root / "robots" / name, examples, train=False)
        site = "hall-1" if name in FIRST else "yard"
        Register(server_dir.robots).add(name, site, line)
        fleet.run_robot(name)
    fleet.wait("version 1 everywhere", lambda: set(running(fleet).values()) == {1}, 900)
    store.add(bundle(fleet.root, 2, worse=True), TINY)
    fleet.type(
        "cloud-server", "models", "promote", fleet.server, 2, "--groups", "site:hall-1,100%",
        "--wait", 0,
    )  # fmt: skip
    fleet.wait("a halt", lambda: rollout(fleet)["state"] != "advancing", 900)
    return fleet


def running(fleet):
    """Return robot -> version that it runs, as the server knows it."""
    return {one["name"]: one["active_version"] for one in fleet.admin().status()["robots"]}


def rollout(fleet):
    (told,) = fleet.admin().status()["rollouts"]
    return told


def seen(fleet, name):
    """Return the versions whose manifest or files a robot has ever had, by its folder and log."""
    models = fleet.root / "robots" / name / "state" / "models"
    files = {int(folder.name.partition("-")[0]) for folder in (models / "versions").iterdir()}
    log = fleet.log(name)
    return files | {version for version in (2, 3) if f"version {version} " in log}


def test_it_is_halted_by_itself_and_the_status_says_why(story):
    told = rollout(story)
    assert (told["state"], told["open"]) == ("halted", 1)
    status = story.type("cloud-server", "status", story.server).stdout
    assert "rollout of version 2 on channel stable is HALTED" in status
    assert "robots that have decided failed, at most 20% may: " in told["why"]
    assert "accuracy" in told["why"]
    assert any(f"{name} (" in told["why"] for name in REFUSING)
    table = json.loads(
        story.type("cloud-server", "rollout", "status", story.server, "--json").stdout
    )
    outcomes = {one["name"]: one["outcome"] for one in table[0]["robots"]}
    assert {outcomes[name] for name in OTHERS} == {"waiting"}
    assert "failed" in {outcomes[name] for name in REFUSING}
    assert {one["wants"] for one in table[0]["robots"] if one["name"] in OTHERS} == {1}


def test_nobody_beyond_the_group_has_seen_it(story):
    assert {name: seen(story, name) - {1} for name in OTHERS} == {name: set() for name in OTHERS}
    assert {name: running(story)[name] for name in OTHERS} == dict.fromkeys(OTHERS, 1)


def test_no_robot_that_can_tell_runs_it(story):
    assert {running(story)[name] for name in CAN_TELL} == {1}


def test_a_server_that_is_killed_knows_it_still_and_taken_back_all_run_the_fallback(story):
    """Last: it ends the story."""
    story.processes["server"].kill()
    story.processes.pop("server").wait()
    story.start_server()
    assert rollout(story)["state"] == "halted"
    done = story.type("cloud-server", "rollout", "abort", story.server)
    assert "aborted, 1 of 2 groups open: all robots get version 3" in done.stdout
    story.wait("the fallback everywhere", lambda: set(running(story).values()) == {3}, 900)
    assert story.admin().status()["channels"]["stable"] == 3
    assert not [name for name in OTHERS if 2 in seen(story, name)]
    steps = (story.server / "releases.jsonl").read_text()
    assert steps.count('"kind":"rollout"') + steps.count('"kind": "rollout"') == 3
    assert story.type("cloud-server", "rollout", "halt", story.server, exit_code=2)
