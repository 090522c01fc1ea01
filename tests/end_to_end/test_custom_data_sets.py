"""A user's own data set, of every kind, teaches a fleet: two robots, a round, a published model."""

import json

import pytest

from fleet_model.errors import LossError

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

KINDS = ["folder", "yolo", "coco", "tfds"]
FRAMES = 40


@pytest.fixture(scope="module")
def server(fleet):
    """One server for all kinds; every kind closes one more round on it."""
    fleet.init()
    fleet.start_server()
    return fleet


@pytest.fixture(scope="module")
def data_set(fleet):
    """Return a maker of one robot's data set, out of its own bag."""

    def make(robot, kind):
        bag, out = fleet.root / "bags" / robot, fleet.root / "data" / kind / robot.replace("/", "-")
        if not bag.exists():
            fleet.bag(robot, FRAMES)
        done = fleet.type(
            "edge-agent", "extract", bag, "--labels", "/camera/label", "--format", kind,
            "--out", out, "--json",
            # YOLO and COCO files hold boxes: the labels of whole frames are in the manifest alone.
            exit_code=LossError.exit_code if kind in ("yolo", "coco") else 0,
        )  # fmt: skip
        assert json.loads(done.stdout.splitlines()[-1])["frames_written"] == FRAMES
        return out

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_two_robots_learn_from_a_data_set_and_predict_on_one(server, data_set, kind):
    before = len(json.loads(versions(server))["versions"])
    robots = [f"{kind}-r{number}" for number in (1, 2)]
    for name, camera in zip(robots, ("hall-1/r1", "hall-2/r1"), strict=True):
        config = server.add_robot(name, "--examples", data_set(camera, kind))
    server.wait("both robots", lambda: server.online() == set(robots))

    run = server.train(rounds=1)
    assert run["state"] == "finished"
    assert run["published_version"] == before
    (record,) = run["closed"]
    assert {robot["name"]: robot["outcome"] for robot in record["robots"]} == dict.fromkeys(
        robots, "accepted"
    )
    for robot in record["robots"]:
        held_out = robot["metrics"]["held_out"]
        assert 0.6 * FRAMES <= robot["num_examples"] <= FRAMES - held_out
        assert held_out > 0
        assert robot["metrics"]["unreadable"] == 0

    for name in robots:
        server.wait("version", lambda n=name: server.status(n)["active_version"] == before)
    unseen = data_set("hall-3/r1", kind)
    done = server.type("edge-agent", "predict", unseen, "--config", config, "--json")
    summary = json.loads(done.stdout)["summary"]
    assert summary["model_version"] == before
    assert summary["frames"] == summary["labelled"] == FRAMES
    assert summary["skipped"] == {}
    assert {server.stop(name) for name in robots} == {0}
    server.wait("the end of both", lambda: server.online() == set())


def versions(fleet):
    return fleet.type("cloud-server", "models", "list", fleet.server, "--json").stdout


def test_a_cut_bag_with_labels_in_a_data_set_is_extracted_and_predicted(server, data_set):
    """The labels are in a data set that somebody made of the same bag; its end is cut off."""
    labels = data_set("hall-4/r1", "coco")
    bag = server.root / "bags" / "hall-4" / "r1"
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-5000])
    (bag / "metadata.yaml").unlink()
    out = server.root / "data" / "cut"
    done = server.type(
        "edge-agent", "extract", bag, "--labels", labels, "--out", out, "--json",
        exit_code=LossError.exit_code,
    )  # fmt: skip
    answer = json.loads(done.stdout.splitlines()[-1])
    assert 0 < answer["frames_written"] <= FRAMES
    assert answer["damage"]
    config = server.add_robot("cut-r1", "--examples", labels)
    server.wait("a version", lambda: server.status("cut-r1").get("active_version") is not None)
    assert server.stop("cut-r1") == 0
    done = server.type(
        "edge-agent", "predict", bag, "--config", config, "--json", "--label-topic", labels,
        exit_code=LossError.exit_code,
    )  # fmt: skip
    summary = json.loads(done.stdout)["summary"]
    assert summary["labelled"] == summary["frames"] == answer["frames_written"]
    assert summary["skipped"]
