"""Robots that say how good a version is on what they hold out, for runs that the gate judges."""

import threading
import time

import numpy as np

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.rounds.round_loop import Participant, Reply
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import RoundSettings, ServerSettings
from fleet_model.protocol.version import PROTOCOL
from fleet_model.types import EVALUATE, TRAIN, Update

SETTINGS = ServerSettings(rounds=RoundSettings(quorum=2, deadline_s=30.0, wait_s=0.0))


class Fleet:
    """Two robots of 60 held-out examples; `accuracy` is what they measure of a version."""

    def __init__(self):
        self.robots = [
            Participant(node_id=n, name=f"r{n}", site="hall", protocol=PROTOCOL) for n in (1, 2)
        ]
        self.accuracy = {}
        self.requests, self.asked, self.examples = [], {}, 60
        self.held = None  # the version that nobody answers to train
        self.measuring = threading.Event()
        self.measuring.set()

    def open_run(self, resume):
        return resume or FlowerRun(run_id=1, task_id=1)

    def close_run(self, *, completed):
        pass

    def online(self):
        return self.robots

    def shut_out(self):
        return {}

    def still_open(self, tickets):
        return set(tickets)

    def send(self, participants, request, ttl_s):
        self.requests.append((request.kind, request.checkpoint.version))
        sent = {f"{robot.name}-{len(self.requests)}": robot for robot in participants}
        self.asked |= dict.fromkeys(sent, request)
        return sent

    def replies(self, tickets):
        requests = {ticket: self.asked[ticket] for ticket in tickets}
        if not self.measuring.is_set():
            requests = {t: one for t, one in requests.items() if one.kind != EVALUATE}
        return [
            Reply(ticket=t, update=self.answer(one))
            for t, one in requests.items()
            if (one.kind, one.checkpoint.version) != (TRAIN, self.held)
        ]

    def answer(self, request):
        version = request.checkpoint.version
        now = self.accuracy.get(version, 0.5)
        if request.kind == EVALUATE:
            metrics, weights = {"accuracy": now}, {}
        else:
            metrics = {"accuracy_before": now, "accuracy_after": 0.99, "held_out": 60.0}
            weights = {n: np.ones_like(w) for n, w in request.checkpoint.weights.items()}
        return Update(
            kind=request.kind, robot="", base_version=version, weights=weights,
            num_examples=self.examples, num_steps=0, metrics=metrics,
        )  # fmt: skip


def ended(run):
    end = time.monotonic() + 240
    while run.active:
        assert time.monotonic() < end
        time.sleep(0.01)
    return run


def finished(run):
    ended(run)
    assert (run.state, run.error) == ("finished", "")
    return run


def publish(server_dir, settings, checkpoint, stop, tell):
    """Stand for the export, which needs TensorFlow; the rest of publishing is real."""
    store = DirectoryStore(server_dir.store)
    manifest = store.reissue(1, checkpoint.version, "2026-01-01")
    tell()
    store.offer(settings.channel, checkpoint.version)
    return manifest
