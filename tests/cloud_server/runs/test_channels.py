"""Two channels with trainers of their own on one server directory, followed by two robots.

The round loop, checkpoints, history, store and robots' model directories are real; the export,
which needs TensorFlow, copies files.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cloud_server.models import publish as publish_module
from cloud_server.models.older_agents import OlderAgents
from cloud_server.rounds import fleet as seam
from cloud_server.rounds.fleet import Participant, Reply
from cloud_server.runs.runs import Runs
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.history import ClosedRounds
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import (
    GateSettings,
    PublishSettings,
    RoundSettings,
    ServerSettings,
)
from edge_agent.models.deploy import Models
from fleet_model.bundle import MANIFEST, TRAINER, entry_of, parse_manifest, to_json
from fleet_model.types import Checkpoint, Update

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
OPEN = GateSettings(publish="always")
ROUNDS = RoundSettings(quorum=1, deadline_s=5.0, wait_s=0.0, keep_checkpoints=2)


class Fleet(seam.Fleet):
    """One robot, whose updates are +1."""

    def __init__(self):
        self.requests = []

    def open_run(self, resume):
        return None

    def close_run(self, *, completed):
        pass

    def online(self):
        return [Participant(node_id=1, name="r1", site="hall")]

    def still_open(self, tickets):
        return set(tickets)

    def send(self, participants, request, ttl_s):
        self.requests.append(request)
        return {f"t{request.run}-{request.round}": participants[0]}

    def replies(self, tickets):
        start = self.requests[-1].checkpoint
        update = Update(
            robot="r1",
            base_version=start.version,
            weights={name: np.ones_like(one) for name, one in start.weights.items()},
            num_examples=4,
            num_steps=1,
        )
        return [Reply(ticket=ticket, update=update) for ticket in tickets]


@pytest.fixture
def export(monkeypatch):
    """The files of a bundle are those beside the trainer; the head is the version's."""

    def run_export(job, progress, stop):
        manifest = parse_manifest((TINY / MANIFEST).read_bytes())
        head = f"head {job.version} of {job.weights}".encode() * 20
        for name in manifest.files:
            shutil.copy(TINY / name, job.directory / name)
        trainer = (job.model / TRAINER).read_bytes()
        (job.directory / "head.tflite").write_bytes(head)
        (job.directory / TRAINER).write_bytes(trainer)
        files = {**manifest.files, "head.tflite": entry_of(head)}
        changes = {"version": job.version, "files": files, "trainer": entry_of(trainer)}
        (job.directory / MANIFEST).write_bytes(to_json(manifest.model_copy(update=changes)))

    monkeypatch.setattr(publish_module, "run_export", run_export)


@pytest.fixture
def detector(server_dir):
    """Return a second lineage in the directory, with another trainer and other weights."""
    home = server_dir.channels / "detector"
    shutil.copytree(server_dir.model, home / "model")
    trainer = json.loads((home / "model" / TRAINER).read_text())
    trainer["trainable"] = "all"
    (home / "model" / TRAINER).write_text(json.dumps(trainer))
    own = server_dir.of("detector")
    first = Checkpoints(server_dir.checkpoints).latest()
    weights = {name: np.full_like(one, 100) for name, one in first.weights.items()}
    Checkpoints(own.checkpoints).save(Checkpoint(version=0, weights=weights))
    return own


def train(server_dir, channel, rounds, fleet):
    """Be a server process whose settings name the channel; return the run that has ended."""
    settings = ServerSettings(rounds=ROUNDS, publish=PublishSettings(channel=channel), gate=OPEN)
    runs = Runs(server_dir, settings, fleet)
    run = runs.start(rounds)
    for thread in runs._threads:
        thread.join()
    assert (run.state, run.error) == ("finished", "")
    return run


def follow(robot, channel, server_dir):
    """Install what a channel offers on a robot; return its version and trainer."""
    store = DirectoryStore(server_dir.store)
    models = Models(robot, channel)
    offer = store.latest(channel)
    models.install(store, offer, "fp32")
    assert models.active("fp32") == offer
    spec, _ = models.trainer(store, offer.manifest.trainer, "litert")
    return offer.manifest.version, spec.trainable


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_channels_train_publish_and_are_followed_side_by_side(
    server_dir, detector, export, tmp_path
):
    fleet, first, second = Fleet(), tmp_path / "r1", tmp_path / "r2"
    train(server_dir, "stable", 2, fleet)
    before = files(server_dir.checkpoints)
    run = train(server_dir, "detector", 3, fleet)

    assert files(server_dir.checkpoints) == before
    assert (run.channel, run.first_version, run.published_version) == ("detector", 0, 3)
    weights = Checkpoints(detector.checkpoints).latest().weights
    assert all((one == 103).all() for one in weights.values())
    assert DirectoryStore(server_dir.store).offers() == {
        "stable": (3, ""),
        "detector": (3, "detector"),
    }
    assert follow(first, "stable", server_dir) == (3, "head")
    assert follow(second, "detector", server_dir) == (3, "all")
    robots = files(second)

    train(server_dir, "stable", 1, fleet)
    assert follow(first, "stable", server_dir) == (4, "head")
    assert follow(second, "detector", server_dir) == (3, "all")
    assert files(second).keys() == robots.keys()
    assert [one.version for one in ClosedRounds(server_dir)] == [2, 3, 4]
    assert [one.version for one in ClosedRounds(detector)] == [1, 2, 3]


def test_a_run_of_one_channel_is_continued_for_it_by_a_server_of_another(
    server_dir, detector, export
):
    fleet = Fleet()
    train(server_dir, "detector", 2, fleet)
    run = json.loads(next(server_dir.runs.glob("*/run.json")).read_text())
    run |= {"state": "waiting", "rounds": 4, "published_version": None}
    (server_dir.runs / run["id"] / "run.json").write_text(json.dumps(run))

    runs = Runs(server_dir, ServerSettings(rounds=ROUNDS, gate=OPEN), fleet)  # channel stable
    runs.go_on()
    while runs.get(run["id"]).active:
        runs._threads[0].join(0.01)
    runs.leave()

    assert runs.get(run["id"]).published_version == 4
    assert [record["version"] for record in runs.get(run["id"]).closed] == [1, 2, 3, 4]
    assert Checkpoints(server_dir.checkpoints).newest() == 1
    assert DirectoryStore(server_dir.store).offers()["detector"] == (4, "detector")


def test_a_version_that_a_second_channel_offers_is_stored_once(server_dir, detector, export):
    train(server_dir, "detector", 1, Fleet())
    store = DirectoryStore(server_dir.store)
    before = files(server_dir.store)

    store.offer("canary", 1, "detector")

    added = files(server_dir.store).keys() - before.keys()
    assert [path.name for path in added] == ["canary.json"]
    assert store.latest("canary") == store.latest("detector")
    assert store.latest("canary") != store.latest("stable")  # its version is 1, too


def test_a_channel_without_a_folder_gets_what_is_trained_in_the_directory(server_dir, export):
    run = train(server_dir, "canary", 1, Fleet())
    assert run.published_version == 2
    assert DirectoryStore(server_dir.store).offers() == {"stable": (1, ""), "canary": (2, "")}
    assert server_dir.of("../stable").lineage == server_dir.of("").lineage == ""


def test_older_agents_get_the_trainer_of_each_lineage(server_dir, detector):
    newer = json.loads((detector.model / TRAINER).read_text()) | {"news": 1}
    (detector.model / TRAINER).write_text(json.dumps(newer))
    manifest = parse_manifest((TINY / MANIFEST).read_bytes())
    full = entry_of((detector.model / TRAINER).read_bytes())
    content = to_json(manifest.model_copy(update={"trainer": full}))
    older = OlderAgents(*(one.model for one in server_dir.lineages()))

    cut = parse_manifest(older.manifest(content)).trainer
    assert cut != full
    assert "news" not in json.loads(older.object(cut.sha256))
