"""Robots with labels that nobody had, and one that claims too much: real processes over TLS.

A fleet has learned all it can, then something happens, once with the checks and once without. All
of it is for `make soak`; a short story is in test_added_labels.py, the same in one process, for
every day, in tests/cloud_server/simulation/test_newcomers.py.
"""

import csv
import json
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
from drawn_pictures import KNOWN, NEW, draw, photograph

from cloud_server.state.learning_settings import CheckSettings

pytestmark = [
    pytest.mark.soak, pytest.mark.slow, pytest.mark.tensorflow, pytest.mark.timeout(7200),
]  # fmt: skip
BEFORE, AFTER = 40, 15
OLD = ("hall-1/r1", "hall-2/r1")
CHECKS = {"FLEETLEARN_TRAINING__EPOCHS": "5"}  # as without a setting, and the checks too
NO_CHECKS = CHECKS | {
    "FLEETLEARN_CHECKS__MAX_NORM_RATIO": "0",
    "FLEETLEARN_CHECKS__MAX_EXAMPLES_RATIO": "0",
}


def hostile(trainer):
    return {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "EDGE_AGENT_TRAINING__TRAINER": f"tests.end_to_end.held_trainer:{trainer}",
    }


def name_of(robot):
    return robot.replace("/", "-")


class Trained:
    """A fleet that has learned all it can, as it was then and as often as one likes."""

    def __init__(self, fleet, *options):
        self.fleet, self.kept = fleet, fleet.root.with_name(f"{fleet.root.name}-trained")
        # What is published is measured on one of the robots: a trial would refuse it.
        fleet.everywhere = fleet.without_trials | {"EDGE_AGENT_POLL__IDLE_S": "0.5"}
        fleet.init("--backbone", "efficientnet-lite0", *options)
        fleet.environment = CHECKS
        fleet.start_server()
        for robot in OLD:
            join(fleet, robot)
            photograph(fleet.root / "unseen", robot, "unseen", 15)
        draw(fleet.root / "unseen", seed=6)
        self.wait_for(name_of(robot) for robot in OLD)
        fleet.train(BEFORE)
        self.before = accuracy(fleet)
        fleet.kill()
        shutil.copytree(fleet.root, self.kept, symlinks=True)

    def goes_on(self, happens, environment):
        """Return the accuracies after 15 more rounds, and what the rounds say of the robots."""
        fleet = self.fleet
        shutil.rmtree(fleet.root)
        shutil.copytree(self.kept, fleet.root, symlinks=True)
        fleet.environment = environment
        fleet.start_server()
        for robot in OLD:
            fleet.run_robot(name_of(robot))
        happens(fleet)
        self.wait_for(path.name for path in (fleet.root / "robots").iterdir())
        closed = fleet.train(AFTER)["closed"]
        after = accuracy(fleet)
        fleet.kill()
        rounds = [{robot["name"]: robot for robot in record["robots"]} for record in closed]
        self.log([happens.__name__, environment is CHECKS, self.before, after, told(rounds)])
        return after, rounds

    @staticmethod
    def log(line):
        """Tell whoever runs a soak (`-rA` shows it) what docs/soak.md is to have."""
        sys.stdout.write(json.dumps(line) + "\n")

    def wait_for(self, robots):
        names = set(robots)
        self.fleet.wait("all robots", lambda: self.fleet.online() == names)


def told(rounds):
    """Return what the log of a soak is to have: accuracies of every robot, round by round."""
    return {
        name: [round(robots[name]["metrics"]["accuracy_before"], 3) for robots in rounds]
        for name in rounds[0]
    }


def accuracy(fleet):
    """Return the accuracy of the newest model on pictures that no robot has: of (old, new)."""
    robot, version = name_of(OLD[0]), newest(fleet)
    fleet.wait("the model", lambda: fleet.status(robot).get("active_version") == version)
    table = fleet.root / "found.csv"
    fleet.type(
        "edge-agent", "predict", fleet.root / "unseen", "--csv", table, "--precision", "fp32",
        "--dir", fleet.root / "robots" / robot,
    )  # fmt: skip
    right = {True: [], False: []}
    with table.open() as lines:
        for row in csv.DictReader(lines):
            truth = Path(row["topic"]).parent.name  # `truth` is empty where the model lacks it
            right[truth in NEW].append(row["label"] == truth)
    return tuple(sum(right[new]) / len(right[new]) for new in (False, True))


def newest(fleet):
    listed = fleet.type("cloud-server", "models", "list", fleet.server, "--json").stdout
    return json.loads(listed)["channels"]["stable"]


def join(fleet, robot, **environment):
    pictures = photograph(fleet.root / "pictures" / name_of(robot), robot, "first", 25)
    fleet.add_robot(name_of(robot), "--examples", pictures, run=False)
    fleet.run_robot(name_of(robot), **environment)


def a_robot_joins(fleet):
    fleet.add_robot("dock", "--examples", draw(fleet.root / "pictures" / "dock"))


def labels_are_added(fleet):
    fleet.type("cloud-server", "labels", "add", fleet.server, *NEW)
    a_robot_joins(fleet)


def a_folder_gains_labels(fleet):
    draw(fleet.root / "pictures" / name_of(OLD[1]))


def two_more_and_a_wrong_one_join(fleet, trainer="WrongTrainer"):
    for robot in ("hall-1/r2", "hall-2/r2"):
        join(fleet, robot)
    join(fleet, "hall-1/hostile", **hostile(trainer))


def two_more_and_a_boasting_one_join(fleet):
    two_more_and_a_wrong_one_join(fleet, "BoastingTrainer")


@pytest.fixture(scope="module")
def trained(new_fleet):
    """Return what makes a trained fleet, once for the same options."""
    return cache(lambda *options: Trained(new_fleet(), *options))


ALL = ("--labels", ",".join((*KNOWN, *NEW)))


@pytest.mark.parametrize(
    ("happens", "options"),
    [(a_robot_joins, ALL), (a_folder_gains_labels, ALL), (labels_are_added, ())],
)
def test_new_labels_are_learned_as_fast_as_without_checks_and_cost_the_old_ones_nothing(
    happens, options, trained
):
    fleet = trained(*options)
    (old, new), rounds = fleet.goes_on(happens, CHECKS)
    _, unchecked = fleet.goes_on(happens, NO_CHECKS)[0]

    assert fleet.before[1] == 0.0  # not an answer yet
    assert new >= max(0.8, unchecked - 0.05)
    assert old >= fleet.before[0] - 0.03
    assert {robot["verdict"] for robots in rounds for robot in robots.values()} == {"accepted"}


def test_the_largest_claim_changes_honest_accuracy_little_and_is_named(trained):
    fleet = trained()
    # What one robot of five with wrong labels costs is for a robust rule to bound, not for checks.
    (modest, _), _ = fleet.goes_on(two_more_and_a_wrong_one_join, CHECKS)
    (bound, _), rounds = fleet.goes_on(two_more_and_a_boasting_one_join, CHECKS)
    (unbound, _), _ = fleet.goes_on(two_more_and_a_boasting_one_join, NO_CHECKS)

    assert bound >= modest - 0.02
    assert unbound < modest - 0.2  # so it is the bound that does it
    claim = CheckSettings().max_examples_per_robot
    for robots in rounds:
        boasting = robots["hall-1-hostile"]
        assert boasting["outcome"].startswith(f"accepted, but {claim} examples count as ")
        assert boasting["weight"] <= max(robots[name_of(robot)]["weight"] for robot in OLD)
