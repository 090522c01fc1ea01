"""Two robots behind a site relay and one beside it teach the fleet what three robots would.

Real processes over TLS; the relay is killed in the first round, and in an exchange of sums. Robots
are scripted, so that the model can be compared bit for bit with what their updates make.
"""

import json
import signal

import numpy as np
import pytest

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.closed_form.fleet_sums import fleet_sums
from cloud_server.closed_form.heads import lda
from cloud_server.closed_form.solve import LDA_STRENGTH
from cloud_server.rounds.sums_exchange import space_of
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.sums.sums_store import SumsStore
from edge_agent.link.elsewhere import open_elsewhere
from edge_agent.link.server_link import HttpsStore
from edge_agent.link.signed_models import SignedModels
from edge_agent.robot.settings import load_settings
from fleet_model.bundle import parse_trainer
from fleet_model.types import Update

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EXAMPLES = {"a": 35, "b": 20, "c": 50}
ROUNDS = 2
ALL_COUNT = {"FLEETLEARN_CHECKS__MAX_EXAMPLES_RATIO": "0"}
FIRST = "round 1: robot a: update received"
AGAIN = "round 1 is taken up again: 1 replies kept"


def building(new_fleet, fleet, robots):
    """Return a relay of the fleet that is running, admitted for so many robots."""
    relay = new_fleet()
    relay.server, relay.port = relay.root / "relay", relay.free_port()
    relay.admin = type(relay.admin)(ServerDirectory(relay.server))
    made = relay.type(
        "site-relay", "init", relay.server, "--kit", fleet.server / "kit", "--name", "127.0.0.1",
        "--host", "127.0.0.1", "--port", relay.port,
    )  # fmt: skip
    key = made.stdout.splitlines()[0]
    fleet.type("cloud-server", "robots", "add", fleet.server, "relay", "--site", "b", "--key", key)
    fleet.type("cloud-server", "robots", "relay", fleet.server, "relay", robots)
    relay.everywhere = {**ALL_COUNT, "EDGE_AGENT_POLL__IDLE_S": "0.3"}
    return relay


def start(relay):
    relay.start("relay", "-m", "site_relay", "start", relay.server)
    relay.processes["server"] = relay.processes.pop("relay")
    (relay.root / "server.log").unlink(missing_ok=True)
    (relay.root / "server.log").symlink_to(relay.root / "relay.log")


@pytest.fixture(scope="module")
def relayed(new_fleet):
    """Return (fleet, relay) after two rounds; the relay was killed when it had kept one reply."""
    fleet = new_fleet()
    fleet.init()
    fleet.environment = {**ALL_COUNT, "FLEETLEARN_START__DIRECTIONS": "0"}
    fleet.start_server(exports=False)
    relay = building(new_fleet, fleet, 2)
    start(relay)
    held = relay.root / "go-on"
    relay.start_scripted("robots", {"a": f"honest:{EXAMPLES['a']}", "b": f"held:{held}"})
    relay.add_robot("follower", "--no-train", site="b")
    fleet.start_scripted("robots", {"c": f"honest:{EXAMPLES['c']}"})
    fleet.wait("relay and robot", lambda: fleet.online() == {"relay", "c"})
    relay.wait("its robots", lambda: {"a", "b"} <= relay.online())
    run = fleet.admin().start_run(ROUNDS)["id"]
    kill_and_go_on(fleet, relay, run, held)
    relay.wait("the model", lambda: relay.status("follower").get("active_version") == ROUNDS)
    relay.of_training = relay.log("relay")
    return fleet, relay


def kill_and_go_on(fleet, relay, run, held):
    """Kill the relay when it has kept the reply of a, and b's is held; wait for the run's end."""
    again = relay.log("relay").count(AGAIN)  # as often was a reply of a kept before
    relay.wait("the reply of a", lambda: relay.log("relay").count(FIRST) > again)
    relay.processes["server"].send_signal(signal.SIGKILL)
    relay.processes.pop("server").wait()
    start(relay)
    relay.wait("the round again", lambda: relay.log("relay").count(AGAIN) > again)
    held.touch()
    fleet.wait("the run", lambda: fleet.admin().run(run)["state"] == "finished")


def announce(fleet, *names):
    """Look for a model as agents do that know sums; scripted robots never look."""
    for name in names:
        agent = load_settings(fleet.root / "robots" / name / "agent.toml")
        signed = SignedModels(agent.state / "trust", agent.server.root, agent.server.key)
        HttpsStore(agent.server, signed=signed, elsewhere=open_elsewhere(agent.server)).latest(
            "stable"
        )


@pytest.fixture(scope="module")
def summed(relayed):
    """Return (fleet, relay, what it logged) after an exchange of sums in which it was killed."""
    fleet, relay = relayed
    held = relay.root / "go-on"
    held.unlink()
    announce(relay, "a", "b")
    announce(fleet, "c")
    run = fleet.admin().start_run(1, closed_form="lda")["id"]
    kill_and_go_on(fleet, relay, run, held)
    return fleet, relay, relay.log("relay").removeprefix(relay.of_training)


def updates(scripted, checkpoint):
    """Return what the three robots send for a checkpoint."""
    pairs = []
    for name, examples in EXAMPLES.items():
        weights = scripted.honest_weights(name, checkpoint)
        one = Contribution(robot=name, site="", examples=examples)
        sent = Update(
            robot=name, base_version=checkpoint.version, weights=weights, num_examples=examples,
            num_steps=1,
        )  # fmt: skip
        pairs.append((one, sent))
    return UpdatesInMemory(pairs)


def test_relayed_equals_direct(relayed, scripted):
    fleet, _ = relayed
    saved = Checkpoints(ServerDirectory(fleet.server).checkpoints)
    expected = saved.load(0)
    for _ in range(ROUNDS):
        expected = FedAvg().fold(expected, updates(scripted, expected))

    for name, tensor in saved.load(ROUNDS).weights.items():
        np.testing.assert_allclose(tensor, expected.weights[name], rtol=1e-9, atol=1e-12)


def test_the_history_says_for_how_many_robots_it_answered(relayed):
    fleet, relay = relayed
    last = json.loads((fleet.server / "history.jsonl").read_text().splitlines()[ROUNDS - 1])
    answered = {robot["name"]: robot for robot in last["robots"]}

    assert answered["relay"]["speaks_for"] == 2
    assert answered["relay"]["num_examples"] == EXAMPLES["a"] + EXAMPLES["b"]
    assert answered["c"]["speaks_for"] == 1
    own = json.loads((relay.server / "history.jsonl").read_text().splitlines()[ROUNDS - 1])
    assert [robot["name"] for robot in own["robots"]] == ["a", "b"]


def test_robots_of_the_building_get_the_same_model_signed_by_the_relay(relayed):
    fleet, relay = relayed
    above, below = (
        DirectoryStore(ServerDirectory(one.server).store).latest_bytes("stable")
        for one in (fleet, relay)
    )

    assert above == below
    assert (relay.server / "kit" / "root.json").read_bytes() != (
        fleet.server / "kit" / "root.json"
    ).read_bytes()
    assert relay.status("follower")["signatures"]["verified_at"]


def test_commands_know_that_it_is_a_relay(relayed):
    fleet, relay = relayed
    begun = relay.type("cloud-server", "train", relay.server, "--rounds", 1, exit_code=10)
    measured = relay.type("cloud-server", "evaluate", relay.server, exit_code=10)
    for told in (begun, measured):
        assert "works on the runs of the fleet's server" in told.stderr
    found = json.loads(relay.type("cloud-server", "doctor", relay.server, "--json").stdout)
    assert not [one for one in found["findings"] if one["state"] == "fail"]
    mended = relay.type("cloud-server", "repair", relay.server, exit_code=2)
    assert "fetches what it lacks by itself" in mended.stderr
    listed = fleet.type("cloud-server", "robots", "list", fleet.server).stdout
    assert "approved, for 2 robots" in listed


def test_a_relay_that_was_killed_asked_nobody_twice(relayed):
    _, relay = relayed
    log = relay.of_training

    assert log.count("round 1: robot a: update received") == 1
    assert log.count("round 1: robot b: update received") == 1
    assert log.count("asked a, b") == ROUNDS


def told(scripted, checkpoint):
    """Return the sums of the three robots."""
    return {
        name: scripted.honest_sums(name, checkpoint, examples, 0)
        for name, examples in EXAMPLES.items()
    }


def test_a_head_of_relayed_sums_equals_that_of_the_robots(summed, scripted):
    fleet, _, _ = summed
    server_dir = ServerDirectory(fleet.server)
    saved = Checkpoints(server_dir.checkpoints)
    head, space = space_of(parse_trainer((server_dir.model / "trainer.json").read_bytes()))
    sums = SumsStore(server_dir.sums).of(space)
    assert {name: sums[name].robots for name in sums} == {"c": 1, "relay": 2}
    direct, relayed = (
        lda(fleet_sums(robots).total, LDA_STRENGTH, head.width)
        for robots in (told(scripted, saved.load(ROUNDS)), sums)
    )

    made = saved.load(ROUNDS + 1).weights
    for name, part in ((head.kernel, "kernel"), (head.bias, "bias")):
        one, other = getattr(direct, part), getattr(relayed, part)
        size = np.abs(one).max()
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9 * size)
        # Beside what float32 rounds: its last bit.
        np.testing.assert_allclose(made[name], one, rtol=2**-23, atol=1e-9 * size)


def test_a_relay_that_was_killed_asked_nobody_for_sums_twice(summed):
    _, relay, log = summed

    assert log.count("round 1: robot a: update received") == 1
    assert log.count("round 1: robot b: update received") == 1
    assert log.count("asked a, b") == 1
    assert SumsStore(ServerDirectory(relay.server).sums).robots() == ["a", "b"]


def test_a_robot_is_unlearned_at_its_relay_while_that_runs(summed):
    _, relay, _ = summed
    done = relay.type("cloud-server", "robots", "forget", relay.server, "a", "--unlearn")

    assert "the sums of a are removed" in done.stdout
    assert SumsStore(ServerDirectory(relay.server).sums).robots() == ["b"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            ('rule = "fedavg"', 'rule = "median"'),
            "aggregation.rule median must see each robot's update, and relay sends",
        ),
        (
            ('closed_form = "off"', 'closed_form = "ridge"'),
            "start.directions = 16 asks each robot for the leading directions of its scatter",
        ),
    ],
)
def test_what_a_relay_cannot_answer_is_refused_at_start(relayed, setting, words):
    fleet, _ = relayed
    if "server" in fleet.processes:
        fleet.processes.pop("server").kill()
    file = fleet.server / "server.toml"
    text = file.read_text()
    changed = text.replace(*setting)
    assert changed != text
    file.write_text(changed)
    done = fleet.type("cloud-server", "start", fleet.server, exit_code=2)
    file.write_text(text)

    assert words in done.stderr
