"""Tools that change the fleet do what the commands do; the store and the register are real."""

import pytest

from cloud_server import rollback
from cloud_server.cli.assistants.protocol import answer
from cloud_server.cli.assistants.writing import WRITING
from cloud_server.models.release_log import ReleaseLog
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from fleet_model.types import Checkpoint

TOOLS = {tool.name: tool for tool in WRITING}


@pytest.fixture
def trained(server_dir, monkeypatch):
    """Versions 1 and 2 are published, 3 is withheld; an export takes no time."""
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    releases, weights = ReleaseLog(server_dir.releases), checkpoints.load(1).weights
    for version in (2, 3):
        checkpoints.save(Checkpoint(version=version, weights=weights))
    store.reissue(1, 2, "2026-01-01")
    releases.add(2, "published", "run 2", after={"accuracy": 0.9})
    store.offer("stable", 2)
    reasons = [{"kind": "fall", "words": "it fell"}]
    releases.add(3, "withheld", "run 3", after={"accuracy": 0.2}, reasons=reasons)

    def publish(server_dir, settings, checkpoint, progress, tell):
        store.reissue(1, checkpoint.version, "2026-01-01")
        tell()
        store.offer(settings.channel, checkpoint.version)

    monkeypatch.setattr(rollback, "publish", publish)
    return server_dir


@pytest.fixture
def ask(trained, said):
    def call(tool, **given):
        return said(answer(trained.root, TOOLS, tool, given))

    return call


def offered(server_dir, channel="stable"):
    return DirectoryStore(server_dir.store).channels().get(channel)


def test_what_the_gate_withheld_is_published_and_the_log_tells_who_asked(ask, trained, caplog):
    caplog.set_level("INFO")
    failed, told = ask("publish_model", version=3)
    assert (failed, offered(trained)) == (False, 3)
    assert told["words"] == ["version 3 is published; the next run goes on from it"]
    assert "an assistant asks for publish_model: {'version': 3, 'channel': ''}" in caplog.text

    failed, words = ask("publish_model", version=3)
    assert failed
    assert words.startswith("version 3 is published already; `cloud-server models rollback ")
    assert str(trained.root) in words


def test_a_version_goes_to_a_channel_and_a_wrong_group_is_refused(ask, trained):
    assert ask("promote_model", version=2, channel="beta")[0] is False
    assert offered(trained, "beta") == 2
    failed, words = ask("promote_model", version=2, groups="most")
    assert failed
    assert words.startswith("--groups most: ")
    assert ask("promote_model", version=7)[1].startswith("version 7 is not published; ")


def test_robots_get_an_older_version_again(ask, trained):
    failed, told = ask("roll_back_model", version=1)
    assert (failed, offered(trained)) == (False, 4)
    assert told["words"][0].startswith("robots get version 1 again, as version 4;")


def test_a_robot_that_nobody_knows_is_not_approved(ask):
    failed, words = ask("approve_robot", name="r77")
    assert failed
    assert words.startswith("robot 'r77' is not in the register; `cloud-server robots list ")


def test_without_a_running_server_no_run_begins(ask):
    failed, words = ask("start_run", rounds=1)
    assert failed
    assert "is it running? Start it with `cloud-server start" in words
