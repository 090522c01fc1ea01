"""Two robots that call two signs by each other's name: each keeps the tensors that say so."""

import json
import urllib.request

import pytest
from drawn_pictures import photograph
from free_ports import free_port

from cloud_server.state.checkpoints import Checkpoints
from fleet_model.weights import read_weights

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(3600)]
ROBOTS = ("plain", "swapped")
ROUNDS, PIXELS = 2, 128
KEPT, SHARED = "head/kernel", "head/bias"
# On a busy machine nothing is late, and no model is worse: what runs is all that is looked at.
AGENT = {
    "EDGE_AGENT_EXAMPLES__HELD_OUT": "0.4",
    "EDGE_AGENT_INSTALL__TIMEOUT_S": "900",
    "EDGE_AGENT_INSTALL__SLOWER": "1000",
    "EDGE_AGENT_INSTALL__WORSE_BY": "1",
    "EDGE_AGENT_INSTALL__MAX_FALL": "1",
    "EDGE_AGENT_INSTALL__AGREEMENT": "0",
    "EDGE_AGENT_INSTALL__PROBATION_S": "0",
}


@pytest.fixture(scope="module")
def story(fleet):
    fleet.environment = {
        "FLEETLEARN_TRAINING__EPOCHS": "20",
        "FLEETLEARN_AGGREGATION__PERSONAL": KEPT,
    }
    fleet.everywhere = AGENT
    fleet.init("--backbone", "efficientnet-lite0", "--image-size", PIXELS)
    fleet.start_server()
    pictures = {}
    for name in ROBOTS:
        folder = pictures[name] = photograph(fleet.root / "pictures" / name, "hall-1/r1", name, 10)
        if name == "swapped":
            circle, square, aside = folder / "circle", folder / "square", folder / "aside"
            circle.rename(aside)
            square.rename(circle)
            aside.rename(square)
        fleet.add_robot(name, "--examples", folder)
    fleet.wait("both robots", lambda: fleet.online() == set(ROBOTS))
    told = {"run": fleet.train(ROUNDS), "pictures": pictures}
    for name in ROBOTS:
        fleet.wait(
            "the last version with own tensors",
            lambda name=name: (
                fleet.status(name).get("active_version") == ROUNDS
                and (fleet.status(name).get("personal") or {}).get("uses") == ["own_tensors"]
            ),
            patience_s=900,
        )
    return told


def config(fleet, name):
    return fleet.root / "robots" / name / "agent.toml"


def test_only_the_shared_tensors_travel_and_the_checkpoint_keeps_the_others(story, fleet):
    checkpoints = Checkpoints(fleet.server / "checkpoints")
    first, last = read_weights(fleet.server / "model" / "weights.safetensors"), checkpoints.latest()
    assert last.weights[KEPT].tobytes() == first[KEPT].tobytes()
    assert last.weights[SHARED].tobytes() != first[SHARED].tobytes()
    for record in story["run"]["closed"]:
        assert {robot["verdict"] for robot in record["robots"]} == {"accepted"}
        assert {robot["update_bytes"] for robot in record["robots"]} == {
            last.weights[SHARED].nbytes
        }


def test_each_robot_is_right_on_its_own_pictures_and_says_with_what(story, fleet):
    for name in ROBOTS:
        command = (
            "edge-agent",
            "predict",
            story["pictures"][name],
            "--config",
            config(fleet, name),
        )
        summary = json.loads(fleet.type(*command, "--json").stdout)["summary"]
        chosen = fleet.status(name)["personal"]
        assert summary["accuracy"] >= 0.7
        assert chosen["personal"] >= chosen["shared"] + 0.2
        assert summary["runs"].startswith("the model with own tensors; accuracy ")
        status = fleet.type("edge-agent", "status", "--config", config(fleet, name)).stdout
        assert f"runs     {summary['runs']}" in status.splitlines()
        # What is right here is wrong there.
        other = story["pictures"][next(one for one in ROBOTS if one != name)]
        command = ("edge-agent", "predict", other, "--config", config(fleet, name), "--json")
        wrong = json.loads(fleet.type(*command).stdout)["summary"]["accuracy"]
        assert wrong <= summary["accuracy"] - 0.2


def test_serve_runs_them_too(story, fleet):
    port = free_port()
    environment = {"EDGE_AGENT_SERVE__REST": f"127.0.0.1:{port}", "EDGE_AGENT_SERVE__GRPC": ""}
    command = ("-m", "edge_agent.cli", "serve", "--config", config(fleet, "swapped"))
    fleet.start("serve", *command, environment=environment)

    def ask(path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/{path}", data=body)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def ready():
        try:
            return ask("models/model")
        except OSError:
            return None

    fleet.wait("the served model", ready)
    assert ask("models/model")["parameters"]["runs"] == "the model with own tensors"
    right = 0
    files = sorted((story["pictures"]["swapped"] / "circle").iterdir())
    for file in files:
        pixels = [*file.read_bytes()]
        content = bytes(pixels)
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "encoded",
                        "datatype": "BYTES",
                        "shape": [1],
                        "parameters": {"binary_data_size": len(content) + 4},
                    }
                ]
            }
        ).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v2/models/model-encoded/infer",
            data=head + len(content).to_bytes(4, "little") + content,
            headers={"Inference-Header-Content-Length": str(len(head))},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            outputs = json.loads(answer.read())["outputs"]
        right += next(one for one in outputs if one["name"] == "label")["data"] == ["circle"]
    assert right >= 0.6 * len(files)
    assert fleet.stop("serve") == 0


def test_they_outlive_the_agent_and_a_server_that_shares_all_again_ends_them(story, fleet):
    own = fleet.root / "robots" / "plain" / "state" / "personal"
    (kept,) = own.glob("*.safetensors")
    before = kept.read_bytes()
    fleet.processes["plain"].kill()
    fleet.processes.pop("plain").wait()
    assert kept.read_bytes() == before
    fleet.run_robot("plain")
    fleet.wait("the robot", lambda: "plain" in fleet.online())
    fleet.train(1)
    assert kept.read_bytes() != before
    accuracy = fleet.status("plain")["rounds"][-1]["metrics"]["accuracy_before"]
    assert accuracy >= 0.5  # it went on with its own; the shared model has a quarter
    fleet.stop("server")
    fleet.environment = {}
    fleet.start_server()
    fleet.wait("both robots", lambda: fleet.online() == set(ROBOTS))
    fleet.train(1)
    assert not list(own.iterdir())
    assert "own tensors are dropped: the server shares all tensors now" in fleet.log("plain")
