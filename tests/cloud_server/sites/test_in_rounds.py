"""Rounds with a model for each site: what robots are sent, what is kept, what people are told."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.rounds.fleet import Participant
from cloud_server.rounds.starts import by_start
from cloud_server.sites.in_rounds import (
    clusters_of,
    notes_of,
    require_tensors,
    with_sites,
    with_starts,
)
from cloud_server.sites.report import write_report
from cloud_server.sites.site_models import Found, SiteEntry, SiteModels
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.learning_settings import SiteSettings
from cloud_server.state.round_record import RoundRecord, parse_record
from cloud_server.state.words import clusters_in_words
from fleet_model.errors import SettingsError
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig, Update

ON = SiteSettings(enabled=True)
START = Checkpoint(version=0, weights={"head/w": np.zeros(2, np.float32)})


@pytest.fixture
def made():
    """Return the checkpoint of a round: a, c pull one way, b, d the other."""
    pairs = []
    for site, change in {"a": [9, 0], "b": [0, 9], "c": [10, 0], "d": [0, 10]}.items():
        update = Update(
            robot=f"r-{site}", base_version=0, weights={"head/w": np.float32(change)},
            num_examples=1, num_steps=1,
        )  # fmt: skip
        pairs.append((Contribution(robot=f"r-{site}", site=site, examples=1), update))
    return with_sites(FedAvg(), ON).fold(START, UpdatesInMemory(pairs))


def request(checkpoint):
    return RobotRequest(
        run="run", round=2, checkpoint=checkpoint, config=TrainConfig(), trainer="",
        trainer_bytes=0, deadline_s=9.0,
    )  # fmt: skip


def robot(name, site):
    return Participant(node_id=1, name=name, site=site)


def test_robots_are_sent_their_site_s_model_and_others_the_fleet_s(made):
    planned = {r.name: r for r in (robot("r1", "a"), robot("r2", "b"), robot("r3", "new"))}
    # r1 was moved to another site after it was planned: its reply still counts for a
    now = [
        robot("r1", "b"),
        robot("r2", "b"),
        robot("r3", "new"),
    ]

    sent = {
        r.name: part.checkpoint.weights["head/w"].tolist()
        for part, robots in by_start(with_starts(request(made), ON), now, planned)
        for r in robots
    }

    fleet = [4.75, 4.75]
    near = 0.7 * np.array([9, 0]) + 0.3 * np.array([9.5, 0])
    np.testing.assert_allclose(sent["r1"], 0.8 * near + 0.2 * np.array(fleet), rtol=1e-6)
    assert sent["r2"] == sent["r1"][::-1]
    assert sent["r3"] == fleet


def test_where_sites_are_switched_off_what_is_known_of_them_is_dropped(made):
    made = replace(made, server_state={**made.server_state, "checks/norms": np.ones(1)})

    plain = with_starts(request(made), SiteSettings())

    assert plain.starts == {}
    assert set(plain.checkpoint.server_state) == {"checks/norms"}
    ((same, _),) = by_start(plain, [robot("r1", "a")], {"r1": robot("r1", "a")})
    assert same.checkpoint is plain.checkpoint


def test_a_pattern_that_names_no_tensor_is_refused_before_the_first_round():
    require_tensors(SiteSettings(on="nothing"), START.weights)  # switched off
    require_tensors(ON, START.weights)
    with pytest.raises(SettingsError, match=r"sites.on is 'lora/\*', .* \(head/w\)"):
        require_tensors(SiteSettings(enabled=True, on="lora/*"), START.weights)


def test_the_models_survive_a_checkpoint_on_disk(made, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(made)

    again = checkpoints.latest()

    assert clusters_of(again) == clusters_of(made) == {"a": 1, "b": 2, "c": 1, "d": 2}
    for site, weights in with_starts(request(made), ON).starts.items():
        loaded = with_starts(request(again), ON).starts[site]["head/w"]
        assert loaded.tobytes() == weights["head/w"].tobytes()


def test_a_round_leaves_assignments_elbow_and_similarity_as_json_and_picture(made, tmp_path):
    record = RoundRecord(
        run="run", round=3, version=1, seconds=1.0, robots=(), metrics={},
        clusters=clusters_of(made),
    )  # fmt: skip

    write_report(tmp_path / "sites", parse_record(json.dumps(record.as_json())), made)

    told = json.loads((tmp_path / "sites" / "round-000003.json").read_text())
    assert {one["site"]: one["cluster"] for one in told["sites"]} == clusters_of(made)
    assert set(told["inertia"]) == {"1", "2", "3", "4"}
    assert told["similarity"]["sites"] == ["a", "c", "b", "d"]
    cosines = np.array(told["similarity"]["cosines"])
    assert cosines[0, 1] > 0.9 > -0.9 > cosines[0, 2]
    picture = cv2.imread(str(tmp_path / "sites" / "round-000003.png"))
    assert picture.shape == (800, 1500, 3)
    assert (picture != 255).any(axis=2).mean() > 0.1


def test_a_round_without_sites_leaves_nothing(tmp_path):
    record = RoundRecord(run="run", round=3, version=1, seconds=1.0, robots=(), metrics={})

    write_report(tmp_path / "sites", record, START)

    assert list(tmp_path.iterdir()) == []


PARTED = SiteSettings(enabled=True, num_clusters=2)


@pytest.fixture
def parted():
    """Return the checkpoint of a round: the robots of hall pull two ways, yard has but one."""
    changes = {"r1": [9, 0], "r2": [10, 0], "r3": [0, 9], "r4": [0, 10], "y1": [-9, 0]}
    pairs = []
    for name, change in changes.items():
        update = Update(
            robot=name, base_version=0, weights={"head/w": np.float32(change)}, num_examples=1,
            num_steps=1,
        )  # fmt: skip
        site = "yard" if name == "y1" else "hall"
        pairs.append((Contribution(robot=name, site=site, examples=1), update))
    return with_sites(FedAvg(), PARTED).fold(START, UpdatesInMemory(pairs))


def sent_to(checkpoint, robots, settings=PARTED):
    """Return robot -> what it is sent."""
    planned = {robot.name: robot for robot in robots}
    return {
        r.name: part.checkpoint.weights["head/w"]
        for part, some in by_start(with_starts(request(checkpoint), settings), robots, planned)
        for r in some
    }


def test_robots_are_sent_the_model_of_their_cluster_also_from_a_checkpoint_on_disk(
    parted, tmp_path
):
    asked = [robot(f"r{n}", "hall") for n in (1, 2, 3, 4, 5)]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(parted)

    sent, again = sent_to(parted, asked), sent_to(checkpoints.latest(), asked)

    # own (9.5, 0) and (0, 9.5), the site (4.75, 4.75), yard (-9, 0), the fleet (2, 3.8): two sites
    # are one cluster, so all move by 0.44 of their way to the fleet
    fleet = np.array([2, 3.8])
    np.testing.assert_allclose(sent["r1"], 0.56 * np.array([9.5, 0]) + 0.44 * fleet, rtol=1e-6)
    np.testing.assert_allclose(sent["r3"], 0.56 * np.array([0, 9.5]) + 0.44 * fleet, rtol=1e-6)
    assert sent["r2"].tolist() == sent["r1"].tolist()
    assert sent["r4"].tolist() == sent["r3"].tolist()
    np.testing.assert_allclose(sent["r5"], 0.56 * 4.75 + 0.44 * fleet, rtol=1e-6)  # new: the site's
    assert {name: one.tobytes() for name, one in again.items()} == {
        name: one.tobytes() for name, one in sent.items()
    }


def test_a_robot_that_was_moved_has_no_cluster_at_its_new_site_and_none_where_there_are_none(
    parted,
):
    sent = sent_to(parted, [robot("r1", "yard"), robot("y1", "yard")])
    assert sent["r1"].tolist() == sent["y1"].tolist()
    alone = sent_to(parted, [robot("r1", "hall"), robot("r5", "hall")], ON)
    assert alone["r1"].tolist() == alone["r5"].tolist()


def test_a_round_tells_of_clusters_of_robots_in_words_json_and_picture(parted, tmp_path):
    assert notes_of(parted) == (
        "robots of site hall, in 2 clusters: r1, r2 | r3, r4",
        "robots of site yard, in one cluster: 1 in this round are too few to part them, expected "
        "at least 4",
    )
    record = RoundRecord(
        run="run", round=3, version=1, seconds=1.0, robots=(), metrics={},
        clusters=clusters_of(parted),
    )  # fmt: skip
    write_report(tmp_path, record, parted)

    told = json.loads((tmp_path / "round-000003.json").read_text())
    hall, yard = (one["robots"] for one in told["sites"])
    assert [(one["cluster"], one["robots"], one["examples"]) for one in hall["clusters"]] == [
        (1, {"r1": 1, "r2": 1}, 2.0),
        (2, {"r3": 1, "r4": 1}, 2.0),
    ]
    assert (hall["too_few"], set(hall["inertia"])) == (False, {"1", "2", "3"})
    assert (yard["clusters"], yard["too_few"], yard["replied"]) == ([], True, 1)
    picture = cv2.imread(str(tmp_path / "round-000003.png"))
    assert picture.shape == (800 + 3 * 34, 1500, 3)
    first, second = picture[844, 210].tolist(), picture[844, 210 + 5 * 18].tolist()
    assert first == [117, 122, 11]  # filled
    assert second == [255, 255, 255]  # a ring
    assert picture[844 - 6, 210 + 5 * 18].tolist() != [255, 255, 255]


def test_a_cluster_that_keeps_its_model_is_told():
    pairs = [
        (Contribution(robot=name, site="hall", examples=1), Update(
            robot=name, base_version=0, weights={"head/w": np.float32(change)}, num_examples=1,
            num_steps=1,
        ))
        for name, change in [(f"a{n}", [9, 0]) for n in range(5)] + [("b1", [0, 9]), ("b2", [0, 8])]
    ]  # fmt: skip
    rule = with_sites(build_aggregator("trimmed_mean", {}), PARTED)

    told = notes_of(rule.fold(START, UpdatesInMemory(pairs)))

    assert told[1].startswith("cluster 2 of site hall keeps its model: 2 robots answered, and")


def test_clusters_in_words():
    assert clusters_in_words({"c": 2, "a": 1, "b": 1}) == "2 clusters: a, b | c"
    assert clusters_in_words({"a": 1}) == "1 cluster: a"
    assert clusters_in_words({}) == ""


def test_people_are_told_who_came_late_who_kept_its_model_and_who_is_forgotten():
    found = Found(left_out={"b": "too few\nrobots"}, forgotten=("z",))
    entries = [SiteEntry(name="a"), SiteEntry(name="new", cluster=1, late=True)]
    models = SiteModels(
        entries=entries, weights={"head/w": np.zeros((2, 2), np.float32)}, found=found
    )

    told = notes_of(replace(START, server_state=models.as_state()))

    assert told == (
        "site b keeps its model: too few\\nrobots",
        "sites that join late begin with the model of a cluster: new (cluster 2)",
        "sites forgotten for want of replies: z",
    )
    assert notes_of(START) == ()
    many = replace(models, found=Found(left_out={f"s{n:03}": "why" for n in range(40)}))
    told = notes_of(replace(START, server_state=many.as_state()))
    assert told[11:13] == ("site s011 keeps its model: why", "28 more sites keep their models")
