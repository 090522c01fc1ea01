"""A user's own data set, of every kind, teaches a fleet: two robots each, a published model."""

import json

import pytest

from fleet_model.errors import LossError

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]

KINDS = ["folder", "yolo", "coco", "tfds"]
FRAMES = 40


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


@pytest.fixture(scope="module")
def server(fleet, data_set):
    """One server, and two robots for each kind of data set."""
    fleet.everywhere = fleet.without_trials
    fleet.init()
    fleet.start_server()
    for kind in KINDS:
        for name, camera in zip(robots_of(kind), ("hall-1/r1", "hall-2/r1"), strict=True):
            fleet.add_robot(name, "--examples", data_set(camera, kind))
    everyone = {name for kind in KINDS for name in robots_of(kind)}
    fleet.wait("all robots", lambda: fleet.online() == everyone)
    return fleet


@pytest.fixture(scope="module")
def run(server):
    """One round of all robots."""
    return server.train(rounds=1)


def robots_of(kind):
    return [f"{kind}-r{number}" for number in (1, 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_robots_learn_from_a_data_set_and_predict_on_one(server, data_set, run, kind):
    assert run["state"] == "finished"
    assert run["published_version"] == 1
    (record,) = run["closed"]
    robots = [robot for robot in record["robots"] if robot["name"] in robots_of(kind)]
    assert [robot["outcome"] for robot in robots] == ["accepted", "accepted"]
    for robot in robots:
        held_out = robot["metrics"]["held_out"]
        assert 0.6 * FRAMES <= robot["num_examples"] <= FRAMES - held_out
        assert held_out > 0
        assert robot["metrics"]["unreadable"] == 0

    for name in robots_of(kind):
        server.wait("version 1", lambda n=name: server.status(n)["active_version"] == 1)
        assert server.stop(name) == 0
    config = server.root / "robots" / name / "agent.toml"
    unseen = data_set("hall-3/r1", kind)
    done = server.type("edge-agent", "predict", unseen, "--config", config, "--json")
    summary = json.loads(done.stdout)["summary"]
    assert summary["model_version"] == 1
    assert summary["frames"] == summary["labelled"] == FRAMES
    assert summary["skipped"] == {}


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
