"""Publishing again and again; the export, which needs TensorFlow, is the tiny bundle's."""

import itertools
import json
import logging
import os
import shutil
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cloud_server.models import publish as publish_module
from cloud_server.models import release_log
from cloud_server.models.export import ExportResult
from cloud_server.models.publish import publish
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.rounds import fleet as seam
from cloud_server.rounds.fleet import Clock, Participant, Reply
from cloud_server.runs import lifecycle, run_store
from cloud_server.runs import runs as runs_module
from cloud_server.runs.run_rounds import close_rounds
from cloud_server.runs.runs import Runs
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import (
    GateSettings,
    PublishSettings,
    RoundSettings,
    ServerSettings,
)
from fleet_model.bundle import MANIFEST, sha256_of
from fleet_model.protocol.proof import make_key
from fleet_model.types import Update

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"


@pytest.fixture(autouse=True)
def export(monkeypatch):
    """Give every version a head of its own, of the same length."""

    def run_export(job, progress, stop):
        shutil.copytree(TINY, job.directory, dirs_exist_ok=True)
        head = b"head %06d" % job.version
        (job.directory / "head.tflite").write_bytes(head)
        manifest = json.loads((TINY / MANIFEST).read_text())
        manifest["version"] = job.version
        manifest["files"]["head.tflite"] = {"sha256": sha256_of(head), "size_bytes": len(head)}
        (job.directory / MANIFEST).write_text(json.dumps(manifest))
        return ExportResult(metrics={})

    monkeypatch.setattr(publish_module, "run_export", run_export)


class Fleet(seam.Fleet):
    """One robot whose updates are +1."""

    def __init__(self):
        self.request = None

    def open_run(self, resume):
        return None

    def close_run(self, *, completed):
        pass

    def online(self):
        return [Participant(node_id=1, name="r1", site="hall")]

    def still_open(self, tickets):
        return set(tickets)

    def send(self, participants, request, ttl_s):
        self.request = request
        return {f"t{request.checkpoint.version}": participants[0]}

    def replies(self, tickets):
        start = self.request.checkpoint
        update = Update(
            robot="r1",
            base_version=start.version,
            weights={name: np.ones_like(w) for name, w in start.weights.items()},
            num_examples=4,
            num_steps=1,
        )
        return [Reply(ticket=ticket, update=update) for ticket in tickets]


def publish_version(server_dir, version, settings):
    """Publish checkpoint 1 under another number."""
    checkpoints = Checkpoints(server_dir.checkpoints)
    first = checkpoints.load(1)
    checkpoint = type(first)(version=version, weights=first.weights)
    checkpoints.save(checkpoint)
    return publish(server_dir, settings, checkpoint)


def published(server_dir):
    return [manifest.version for manifest in DirectoryStore(server_dir.store).versions()]


def test_publishing_deletes_what_is_too_old_and_says_so(server_dir, caplog):
    with caplog.at_level(logging.INFO, logger="cloud_server"):
        for version in (2, 3, 4):
            publish_version(server_dir, version, PublishSettings(keep_versions=2))

    assert published(server_dir) == [3, 4]
    assert "1 old versions are deleted, the newest of them 2" in caplog.text


def test_what_robots_have_installed_stays(server_dir):
    register, seen = Register(server_dir.robots), LastSeen(server_dir.seen)
    register.add("r1", "hall", make_key(server_dir.root / "robot.key"))
    seen.looked("r1", 2, None)
    seen.save(register.robots())

    for version in (2, 3, 4, 5):
        publish_version(server_dir, version, PublishSettings(keep_versions=2))

    assert published(server_dir) == [2, 4, 5]


def test_a_store_that_cannot_be_pruned_publishes_all_the_same(server_dir, caplog):
    server_dir.store.joinpath("pins.json").write_text("{")

    manifest = publish_version(server_dir, 2, PublishSettings(keep_versions=2))

    assert manifest.version == 2
    assert DirectoryStore(server_dir.store).channels() == {"stable": 2}
    assert "old versions are not deleted" in caplog.text


@pytest.mark.slow
def test_a_server_takes_no_more_room_after_300_versions_than_after_100(server_dir, monkeypatch):
    """Runs, rounds, checkpoints and models; only the history, for which it is made, grows."""
    ticks = itertools.count(1_800_000_000)  # seconds: every time has the same number of digits
    for module in (runs_module, lifecycle, run_store, release_log):
        monkeypatch.setattr(module, "time", SimpleNamespace(
            time=lambda: float(next(ticks)), monotonic=lambda: 4.0,
            strftime=time.strftime, gmtime=time.gmtime,
        ))  # fmt: skip
    clock = Clock(now=lambda: 0.0, sleep=lambda _: None)
    monkeypatch.setattr(lifecycle, "close_rounds", partial(close_rounds, clock=clock))
    monkeypatch.setattr(os, "fsync", lambda _: None)  # this test is not about power cuts
    publish_version(server_dir, 1000, PublishSettings())  # then all versions have four digits
    DirectoryStore(server_dir.store).pin(1000)
    rounds = RoundSettings(quorum=1, deadline_s=5.0, wait_s=0.0, keep_checkpoints=3)
    settings = ServerSettings(
        rounds=rounds, publish=PublishSettings(keep_versions=4), gate=GateSettings(publish="always")
    )
    runs, sizes = Runs(server_dir, settings, Fleet()), []
    run_to_its_end(runs, 10)  # the checks remember the lengths of 101 updates at most
    for number in range(1, 301):
        assert run_to_its_end(runs, 1) == 1010 + number
        if number in (100, 300):
            sizes.append(room(server_dir))

    assert sizes[0] == sizes[1]
    assert published(server_dir) == [1000, 1307, 1308, 1309, 1310]
    assert Checkpoints(server_dir.checkpoints).saved() == [1000, 1306, 1307, 1308, 1309, 1310]


def run_to_its_end(runs, rounds):
    """Return the version that a run publishes."""
    run = runs.start(rounds)
    for thread in runs._threads:
        thread.join()
    assert run.state == "finished"
    return run.published_version


def room(server_dir):
    """Return how many files there are, and their bytes, history lines apart."""
    files = [path for path in server_dir.root.rglob("*") if path.is_file()]
    files.remove(server_dir.history)
    files.remove(server_dir.releases)
    return len(files), sum(path.stat().st_size for path in files)
