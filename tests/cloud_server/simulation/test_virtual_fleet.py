"""The virtual fleet alone: what comes back, and when."""

import numpy as np
import pytest

from cloud_server.simulation.population import Population, Traits
from cloud_server.simulation.virtual_fleet import GONE_S, VirtualFleet
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, TrainConfig, Update

SIZE = 1000.0


def request(version=0, epochs=1):
    return RobotRequest(
        run="run",
        round=1,
        checkpoint=Checkpoint(version=version, weights={"w": np.zeros(2, np.float32)}),
        config=TrainConfig(epochs=epochs),
        trainer="",
        trainer_bytes=0,
        deadline_s=1e6,
    )


class Work:
    """Counts trainings, and answers with the robot's number."""

    def __init__(self):
        self.done = []

    def __call__(self, robot, request):
        self.done.append((robot, request.checkpoint.version))
        weights = {"w": np.full(2, robot, np.float32)}
        version = request.checkpoint.version
        return Update(robot="", base_version=version, weights=weights, num_examples=1, num_steps=1)


def fleet_of(count=3, **traits):
    population = Population(Traits(robots=count, **{"off": 0.0, "drop": 0.0, **traits}), 2)
    work = Work()
    return VirtualFleet(population, work, lambda _: SIZE), population, work


def seconds(population, robot):
    return population.work_s(robot, 1) + 2 * population.transfer_s(robot, SIZE)


def pass_time(fleet, until_s):
    while fleet.clock.now() < until_s:
        fleet.clock.sleep(0.05)


def test_names_are_in_the_order_of_numbers_however_many_there_are():
    fleet, _, _ = fleet_of(11)
    names = [robot.name for robot in fleet.online()]
    assert names == sorted(names)
    assert (names[0], names[-1]) == ("robot-01", "robot-11")


def test_each_update_arrives_once_when_its_robot_is_done():
    fleet, population, work = fleet_of(3)
    tickets = fleet.send(fleet.online(), request(), ttl_s=1e5)
    assert fleet.replies(tickets.keys()) == []
    assert work.done == []  # nothing is computed before it is due
    arrived = {}
    while len(arrived) < 3:
        fleet.clock.sleep(0.05)
        for reply in fleet.replies(tickets.keys()):
            assert reply.ticket not in arrived
            assert reply.update.robot == tickets[reply.ticket].name
            arrived[reply.ticket] = fleet.clock.now()
    for ticket, robot in tickets.items():
        due_s = seconds(population, robot.node_id - 1)
        assert due_s <= arrived[ticket] <= due_s + 0.06


def test_a_robot_that_is_too_slow_sends_nothing_and_its_ticket_is_open_until_then():
    fleet, population, work = fleet_of(1)
    ttl_s = seconds(population, 0) / 2
    (ticket,) = fleet.send(fleet.online(), request(), ttl_s)
    assert fleet.still_open([ticket]) == {ticket}
    pass_time(fleet, ttl_s)
    assert fleet.replies([ticket]) == []
    assert fleet.still_open([ticket]) == set()
    assert work.done == []
    assert (fleet.bytes_down, fleet.bytes_up) == (SIZE, 0)


def test_a_robot_that_goes_away_is_noticed_after_the_heartbeat():
    fleet, population, work = fleet_of(1, drop=1.0)
    (ticket,) = fleet.send(fleet.online(), request(), ttl_s=1e5)
    while not (replies := fleet.replies([ticket])):
        fleet.clock.sleep(0.05)
    assert GONE_S <= fleet.clock.now() <= GONE_S + seconds(population, 0)
    assert (replies[0].update, replies[0].outcome.kind) == (None, "offline")
    assert work.done == []


def test_a_robot_trains_from_the_checkpoint_that_it_was_sent():
    fleet, population, work = fleet_of(1)
    first = fleet.send(fleet.online(), request(version=4), ttl_s=1e5)
    second = fleet.send(fleet.online(), request(version=5), ttl_s=1e5)
    pass_time(fleet, seconds(population, 0) + 1)
    replies = fleet.replies([*first, *second])
    assert [reply.update.base_version for reply in replies] == [4, 5]
    assert work.done == [(0, 4), (0, 5)]


def test_replies_wait_until_somebody_asks_for_their_ticket():
    fleet, population, _ = fleet_of(1)
    (ticket,) = fleet.send(fleet.online(), request(), ttl_s=1e5)
    pass_time(fleet, seconds(population, 0) + 1)
    assert fleet.replies(["another"]) == []
    assert fleet.still_open([ticket, "another"]) == {ticket}
    assert len(fleet.replies([ticket])) == 1
    assert fleet.still_open([ticket]) == set()


def test_sleeping_jumps_to_the_next_thing_that_happens():
    fleet, population, _ = fleet_of(1)
    fleet.send(fleet.online(), request(), ttl_s=1e5)
    due_s = seconds(population, 0)
    looks = 0
    while fleet.clock.now() < due_s:
        fleet.clock.sleep(0.05)
        looks += 1
    assert fleet.clock.now() == pytest.approx(due_s)
    assert looks <= due_s / 30 + 1
