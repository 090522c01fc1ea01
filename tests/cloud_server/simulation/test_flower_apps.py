"""The virtual robots as Flower apps: first without, then under Flower's Ray engine."""

import os
import platform
import re
import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Context, Error, Message, MessageType, RecordDict

from cloud_server.simulation import flower_apps
from cloud_server.simulation.flower_apps import ActorFleet
from cloud_server.simulation.learning import KERNEL, HeadTask
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.wire import RobotRequest, unpack_update
from fleet_model.types import TrainConfig

MACHINE = (sys.version_info[:2], sys.platform, platform.machine())
DEVELOPED_ON = ((3, 11), "linux", "x86_64")
NODES = 4
# One actor: each is a process more that Ray starts.
UNDER_RAY = f"""
from flwr.simulation import run_simulation
from cloud_server.simulation.flower_apps import client, server
one = {{"num_cpus": 1}}
backend = {{"init_args": one, "client_resources": one}}
run_simulation(server, client, num_supernodes={NODES}, backend_config=backend)
"""
# Flower imports TensorFlow where there is one, ten seconds a process; here nothing needs it.
NO_TENSORFLOW = 'raise ModuleNotFoundError("left out of this test")'


@pytest.fixture(autouse=True)
def inside_a_task(monkeypatch):
    """Flower makes messages inside a task only."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Nodes:
    """A Grid that calls the ClientApp; node 9's app fails."""

    def __init__(self):
        self.replies = {}

    def get_node_ids(self):
        return [7, 8, 9]

    def push_messages(self, messages):
        tickets = []
        for message in messages:
            node = message.metadata.dst_node_id
            ticket = f"m{node}"
            message.metadata.__dict__["_message_id"] = ticket
            if node == 9:
                self.replies[ticket] = Message(Error(2, "out of memory"), reply_to=message)
            else:
                self.replies[ticket] = flower_apps.client(message, context_of(node - 7))
            tickets.append(ticket)
        return tickets

    def pull_messages(self, tickets):
        return [self.replies.pop(ticket) for ticket in tickets if ticket in self.replies]


def context_of(partition):
    return Context(
        run_id=1,
        node_id=1,
        node_config={"partition-id": partition, "num-partitions": 3},
        state=RecordDict(),
        run_config={"seed": 5},
        series_id=1,
    )


def request():
    return RobotRequest(
        run="run",
        round=1,
        checkpoint=HeadTask(5).start(),
        config=TrainConfig(),
        trainer="",
        trainer_bytes=0,
        deadline_s=60.0,
    )


def test_nodes_answer_with_the_updates_of_their_robots_and_a_failure_is_a_reason():
    fleet = ActorFleet(Nodes())
    tickets = fleet.send(fleet.online(), request(), ttl_s=60.0)
    assert fleet.still_open([*tickets, "another"]) == tickets.keys()
    replies = {tickets[reply.ticket].name: reply for reply in fleet.replies(tickets)}
    assert replies["node-9"].outcome == Outcome("failed", "out of memory")
    first, second = (replies[name].update for name in ("node-7", "node-8"))
    assert (first.robot, second.robot) == ("node-7", "node-8")
    assert not np.array_equal(first.weights[KERNEL], second.weights[KERNEL])
    assert fleet.replies(tickets) == []
    assert fleet.still_open(tickets) == set()


def test_the_same_robot_gives_the_same_update_in_every_process():
    message = Message(
        flower_apps.pack_request(request()), dst_node_id=7, message_type=MessageType.TRAIN
    )
    message.metadata.__dict__["_message_id"] = "m"
    first = unpack_update(flower_apps.client(message, context_of(1)).content, "r")
    flower_apps._world.cache_clear()
    again = unpack_update(flower_apps.client(message, context_of(1)).content, "r")
    np.testing.assert_array_equal(first.weights[KERNEL], again.weights[KERNEL])


@pytest.mark.slow
def test_the_real_round_loop_closes_rounds_over_actors_of_ray(tmp_path):
    if MACHINE != DEVELOPED_ON:  # there, the extra `dev` holds ray: it may not be missing
        pytest.importorskip("ray", reason="needs the extra `simulation`")
    (tmp_path / "tensorflow.py").write_text(NO_TENSORFLOW)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "FLWR_HOME": str(tmp_path / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # 15 starves on a busy machine
    }
    done = subprocess.run(
        [sys.executable, "-c", UNDER_RAY], env=environment, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    rounds = re.findall(r"round (\d): (\d) of (\d) updates, accuracy (0\.\d+)", said)
    assert [(r[0], r[1], r[2]) for r in rounds] == [(str(n), "4", "4") for n in (1, 2, 3)]
    assert float(rounds[-1][3]) > 0.3
