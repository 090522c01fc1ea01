"""An agent of commit 87262d4, the last one without a protocol number, against this server.

Its environment is its own: `make .venv-old/.installed` makes it from this repository's history.
"""

import json
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fleet_model import __version__
from fleet_model.bundle import WRITTEN_PROTOCOL, parse_manifest
from fleet_model.protocol.version import PROTOCOL
from fleet_model.protocol.wire import pack_update
from fleet_model.types import Update

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
OLD_AGENT = Path(__file__).parents[2] / ".venv-old" / "bin" / "edge-agent"
ROUNDS = 2


@pytest.fixture(scope="module")
def mixed(fleet):
    """One old and one new robot after two rounds and the install of version 2; the run."""
    if not OLD_AGENT.exists():
        reason = f"LEFT OUT: no agent of commit 87262d4; `make {OLD_AGENT.parts[-3]}/.installed`"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    fleet.init()
    fleet.environment["FLEETLEARN_ROUNDS__WAIT_S"] = "300"
    fleet.environment["FLEETLEARN_ROUNDS__COMPRESSION"] = "int8"
    fleet.start_server()
    fleet.add_robot("new", "--examples", fleet.bag("hall-1/r1"))
    _add_old_robot(fleet, fleet.bag("hall-2/r1"))
    fleet.wait("version 0", lambda: _active(fleet) == {"new": 0, "old": 0})
    run = fleet.train(rounds=ROUNDS)
    fleet.wait("version 2", lambda: _active(fleet) == {"new": ROUNDS, "old": ROUNDS})
    return run


def _add_old_robot(fleet, bag):
    directory = fleet.root / "robots" / "old"
    command = ("enroll", fleet.server / "kit", "--dir", directory, "--examples", bag)
    subprocess.run([OLD_AGENT, *command], check=True, capture_output=True, timeout=240)
    fleet.type(
        "cloud-server", "robots", "add", fleet.server, "old", "--site", "hall",
        "--key", directory / "robot.pub",
    )  # fmt: skip
    config = directory / "agent.toml"
    fleet.start("old", OLD_AGENT, "run", "--config", config, python=())


def _active(fleet):
    return {name: fleet.status(name).get("active_version") for name in ("new", "old")}


def test_an_old_agent_trains_every_round_beside_a_new_one(mixed):
    outcomes = [
        {robot["name"]: robot["outcome"] for robot in record["robots"]}
        for record in mixed["closed"]
    ]
    assert outcomes == [{"new": "accepted", "old": "accepted"}] * ROUNDS
    for record in mixed["closed"]:
        told = {robot["name"]: robot["label_counts"] for robot in record["robots"]}
        assert (told["old"], sum(told["new"].values()) > 0) == ({}, True)
        codecs = {robot["name"]: robot["codec"] for robot in record["robots"]}
        assert codecs == {"new": "int8", "old": "float32"}


def test_the_old_agent_runs_what_is_published(fleet, mixed):
    sent = fleet.root / "robots" / "old" / "state" / "models" / "current" / "manifest.json"
    stored = (fleet.server / "store" / "versions" / f"{ROUNDS:06d}.json").read_bytes()
    assert parse_manifest(stored).protocol == WRITTEN_PROTOCOL  # it would refuse these bytes
    assert parse_manifest(sent.read_bytes()).files == parse_manifest(stored).files
    done = subprocess.run(
        [
            OLD_AGENT, "predict", fleet.root / "bags" / "hall-2" / "r1", "--json", "--limit", "5",
            "--config", fleet.root / "robots" / "old" / "agent.toml",
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout)["summary"]["model_version"] == ROUNDS


def test_the_new_agent_keeps_the_manifest_as_it_was_stored(fleet, mixed):
    sent = fleet.root / "robots" / "new" / "state" / "models" / "current" / "manifest.json"
    stored = fleet.server / "store" / "versions" / f"{ROUNDS:06d}.json"
    assert sent.read_bytes() == stored.read_bytes()


def test_the_list_of_robots_shows_software_and_protocol(fleet, mixed):
    listed = json.loads(fleet.type("cloud-server", "robots", "list", fleet.server, "--json").stdout)
    told = {robot["name"]: (robot["software"], robot["protocol"]) for robot in listed}
    assert told == {"new": (__version__, PROTOCOL), "old": ("0.1.0", None)}
    table = fleet.type("cloud-server", "robots", "list", fleet.server).stdout
    rows = [line.split("│") for line in table.splitlines() if line.startswith("│")]
    cells = {row[1].strip(): [cell.strip() for cell in row[6:8]] for row in rows}
    assert cells == {"old": ["0.1.0", "-"], "new": [__version__, str(PROTOCOL)]}


def test_robots_measure_a_version_and_the_old_one_is_not_asked(fleet, mixed):
    """What the new robot measures of version 0 is what it measured before its first training."""
    done = fleet.type("cloud-server", "evaluate", fleet.server, "--version", 0, "--json")
    run = json.loads(done.stdout)
    (robot,) = run["measured"]["robots"]
    first = next(r for r in mixed["closed"][0]["robots"] if r["name"] == "new")
    assert (robot["name"], robot["verdict"], run["measured"]["version"]) == ("new", "accepted", 0)
    for name in ("accuracy", "loss"):
        assert robot["metrics"][name] == pytest.approx(first["metrics"][f"{name}_before"])
        assert run["measured"]["metrics"][name] == pytest.approx(robot["metrics"][name])
    assert robot["num_examples"] == first["metrics"]["held_out"]
    shown = fleet.type("cloud-server", "runs", "show", fleet.server, run["id"]).stdout
    assert "version 0, mean over examples: accuracy " in shown
    assert fleet.status("new")["evaluation"]["version"] == 0
    versions = sorted(path.name for path in (fleet.server / "store" / "versions").iterdir())
    assert versions == ["000000.json", f"{ROUNDS:06d}.json"]  # nothing was trained or published


def test_an_old_robot_alone_cannot_measure_and_the_reason_is_told(fleet, mixed):
    done = fleet.type("cloud-server", "evaluate", fleet.server, "--robot", "old", exit_code=10)
    assert (
        "old is left out (its agent speaks protocol 1, this request needs 2: update" in done.stderr
    )


def test_a_server_of_that_commit_reads_the_reply_of_a_new_agent(mixed):
    weights = {"head/bias": np.arange(3, dtype=np.float32)}
    update = Update(
        robot="", base_version=4, weights=weights, num_examples=7, num_steps=2,
        metrics={"held_out": 2.0}, label_counts=(3, 0, 4),
    )  # fmt: skip
    content = pack_update(update)
    objects = {i: o.deflate().hex() for i, o in get_all_nested_objects(content).items()}
    script = (
        "import json, sys\n"
        "from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents\n"
        "from fleet_model.wire import unpack_update\n"
        "root, objects = json.load(sys.stdin)\n"
        "objects = {i: bytes.fromhex(o) for i, o in objects.items()}\n"
        "update = unpack_update(inflate_object_from_contents(root, objects), 'r1')\n"
        "tensors = {name: w.tolist() for name, w in update.weights.items()}\n"
        "print(json.dumps([update.base_version, update.num_examples, tensors, update.metrics]))\n"
    )
    done = subprocess.run(
        [OLD_AGENT.with_name("python"), "-P", "-c", script],
        input=json.dumps([content.object_id, objects]),
        check=True, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert json.loads(done.stdout) == [4, 7, {"head/bias": [0, 1, 2]}, {"held_out": 2.0}]


def test_no_robot_complains(fleet, mixed):
    for name in ("new", "old"):
        assert " ERROR " not in fleet.log(name)
        warnings = [line for line in fleet.log(name).splitlines() if " WARNING " in line]
        assert [line for line in warnings if "scores" not in line] == []  # small bags
