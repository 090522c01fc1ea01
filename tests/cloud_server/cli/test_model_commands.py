"""Models by command: lineage, comparison, going back; the store and the log are real."""

import json
import re

import pytest

from cloud_server.models.release_log import ReleaseLog
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint


@pytest.fixture
def trained(server_dir):
    """Version 2 is published by a run, version 3 is withheld."""
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    releases = ReleaseLog(server_dir.releases)
    weights = checkpoints.load(1).weights
    robots = tuple(
        RobotRecord(name=name, site="hall", outcome=ACCEPTED, num_examples=40)
        for name in ("r1", "r2")
    )
    for version in (2, 3):
        record = RoundRecord(
            run="a", round=version - 1, version=version, seconds=1.0, robots=robots, metrics={}
        )
        checkpoints.save(Checkpoint(version=version, weights=weights), record)
    store.reissue(1, 2, "2026-01-01T10:00:00")
    store.offer("stable", 2)
    releases.add(
        2, "published", "run a", before={"accuracy": 0.5}, after={"accuracy": 0.9}, examples=120
    )
    reasons = [{"kind": "fall", "words": "it fell"}]
    releases.add(
        3, "withheld", "run a", before={"accuracy": 0.9}, after={"accuracy": 0.2}, reasons=reasons
    )
    return server_dir


def test_the_list_tells_who_published_and_what_is_withheld_with_the_command(cloud_server, trained):
    _, table, _ = cloud_server("models", "list", trained.root)
    assert re.search(r"│ 2 .+stable.+run a.+accuracy 0.500 -> 0.900 of 120 examples", table)
    assert (
        f"it fell. To publish it all the same: `cloud-server models publish {trained.root} 3`"
        in (table)
    )
    _, out, _ = cloud_server("models", "list", trained.root, "--json")
    told = json.loads(out)
    assert told["versions"][1]["release"]["by"] == "run a"
    assert "release" not in told["versions"][0]  # of init
    assert [one["version"] for one in told["withheld"]] == [3]


def test_show_tells_the_lineage(cloud_server, trained):
    _, out, _ = cloud_server("models", "show", trained.root, "2", "--json")
    told = json.loads(out)
    wanted = {
        "state": "published", "by": "run a", "weights_of_version": 2, "run": "a", "round": 1,
        "robots": ["r1", "r2"], "training_examples": 80, "held_out_examples": 120,
        "after": {"accuracy": 0.9},
    }  # fmt: skip
    assert {name: told[name] for name in wanted} == wanted
    _, words, _ = cloud_server("models", "show", trained.root, "3")
    assert "state: withheld\n" in words
    assert "reasons: it fell\n" in words
    assert "after: accuracy 0.200\n" in words


def test_compare_shows_in_what_two_versions_differ(cloud_server, trained):
    _, table, _ = cloud_server("models", "compare", trained.root, "2", "3")
    assert re.search(r"│ after +│ accuracy 0.900 +│ accuracy 0.200 +│", table)
    assert "training examples" not in table  # the same of both


def test_a_rollback_says_what_robots_get_and_history_tells_it(cloud_server, trained):
    code, out, _ = cloud_server("models", "rollback", trained.root)
    assert (code, out) == (
        0, "robots get version 1 again, as version 4; the next run goes on from it\n"
    )  # fmt: skip
    _, table, _ = cloud_server("models", "list", trained.root)
    assert re.search(r"│ 4 .+stable.+models rollback of 1", table)
    _, shown, _ = cloud_server("history", trained.root)
    assert "robots get version 1 again, as version 4 (by `cloud-server models rollback`)" in shown
    _, out, _ = cloud_server("history", trained.root, "--json")
    assert [record["release"]["kind"] for record in json.loads(out)] == ["published", "withheld"]


@pytest.mark.parametrize("command", ["show", "rollback", "publish"])
def test_a_version_that_is_not_there_is_named(cloud_server, trained, command):
    code, out, err = cloud_server("models", command, trained.root, "7")
    assert (code, out) == (8 if command == "publish" else 3, "")
    assert re.search("version 7|checkpoint 7", err)


def test_prune_keeps_what_robots_get(cloud_server, trained):
    cloud_server("models", "rollback", trained.root)
    _, out, _ = cloud_server("models", "prune", trained.root, "--keep", "1")
    assert out == "deleted: 1, 2\n"
    assert DirectoryStore(trained.store).published() == [4]
    _, out, _ = cloud_server("models", "prune", trained.root)
    assert out == "deleted: nothing\n"
