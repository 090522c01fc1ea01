"""The fleet over a real link state; what robots send is made by hand at the end of it."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.flower.flower_fleet import FlowerFleet
from cloud_server.flower.flower_link import Arrived, LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.rounds.fleet import Participant
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.wire import METRICS, RobotRequest, pack_update, unpack_request
from fleet_model.types import Checkpoint, TrainConfig, Update

pytestmark = pytest.mark.flower
WEIGHTS = {"w": np.ones(3, np.float32)}
REQUEST = RobotRequest(
    deadline_s=60.0,
    run="run",
    round=1,
    checkpoint=Checkpoint(version=7, weights=WEIGHTS),
    config=TrainConfig(),
    trainer="ab" * 32,
    trainer_bytes=1,
)


def new_line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("flower")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(root))
        yield LinkGrid(create_superlink(str(root / "state.db"), "127.0.0.1", 1))


@pytest.fixture
def register(tmp_path):
    register = Register(tmp_path / "robots.json")
    register.add("r1", "hall-1", new_line())
    register.add("r2", "hall-2", new_line())
    return register


@pytest.fixture
def fleet(grid, register, tmp_path):
    fleet = FlowerFleet(grid, register, LastSeen(tmp_path / "seen.json"))
    fleet.sync()
    return fleet


def remove(register, tmp_path, name):
    """Take a robot out of the register, as an operator's editor does."""
    register._write(tuple(robot for robot in register.robots() if robot.name != name))


def names(fleet):
    return sorted(robot.name for robot in fleet.sync().values())


def bring_online(fleet, name):
    (node_id,) = (node for node, robot in fleet.sync().items() if robot.name == name)
    fleet._grid._state.activate_node(node_id, 30.0)
    return node_id


def test_flowers_nodes_are_those_of_the_register(fleet, grid):
    assert grid.registered().keys() == fleet.sync().keys()
    assert names(fleet) == ["r1", "r2"]


def test_a_robot_that_is_added_or_removed_is_so_at_the_next_look(fleet, grid, register, tmp_path):
    register.add("r3", "hall-1", new_line())
    assert names(fleet) == ["r1", "r2", "r3"]

    remove(register, tmp_path, "r1")
    assert names(fleet) == ["r2", "r3"]
    assert len(grid.registered()) == 2


def test_a_robot_that_is_put_back_is_admitted_again(fleet, register, tmp_path):
    (robot,) = (robot for robot in register.robots() if robot.name == "r1")
    remove(register, tmp_path, "r1")
    assert names(fleet) == ["r2"]

    register.add("r1", "hall-1", robot.key)

    assert names(fleet) == ["r1", "r2"]


def test_robots_that_were_all_removed_while_the_server_was_down_are_forgotten(
    fleet, grid, register, tmp_path
):
    assert len(grid.registered()) == 2
    register._write(())

    FlowerFleet(grid, register, LastSeen(tmp_path / "seen.json")).sync()  # as after a restart

    assert grid.registered() == {}


def test_a_typing_error_in_the_register_is_told_once_and_changes_nothing(
    fleet, grid, register, tmp_path, caplog
):
    bring_online(fleet, "r1")
    file = tmp_path / "robots.json"
    good = file.read_text()
    file.write_text(good.replace("hall-1", "hall 1"))

    assert names(fleet) == ["r1", "r2"]
    assert [robot.name for robot in fleet.online()] == ["r1"]
    assert caplog.text.count("robots stay as they were until it is corrected") == 1
    with pytest.raises(SettingsError, match="correct it or restore it"):  # as after a restart
        FlowerFleet(grid, Register(file), LastSeen(tmp_path / "seen.json")).sync()

    file.write_text(good.replace("hall-1", "hall-9"))
    assert {robot.site for robot in fleet.sync().values()} == {"hall-9", "hall-2"}


def test_one_changed_robot_leaves_the_others_alone(fleet, grid, register, monkeypatch):
    register_node, unregister, touched = grid.register, grid.unregister, []
    monkeypatch.setattr(
        grid, "register", lambda key, name: touched.append(name) or register_node(key, name)
    )
    monkeypatch.setattr(
        grid, "unregister", lambda node_id: touched.append(node_id) or unregister(node_id)
    )
    (gone,) = (node_id for node_id, robot in fleet.sync().items() if robot.name == "r1")
    register.add("r3", "hall-1", new_line())
    register.label("r2", ["fast"], [])
    register.suspend("r1", "test")

    assert {r.name: r.labels for r in fleet.sync().values()} == {"r2": ("fast",), "r3": ()}
    assert touched == ["r3", gone]


def test_requests_of_many_threads_admit_a_robot_once(fleet, register):
    register.add("r3", "hall-1", new_line())

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(lambda _: names(fleet), range(16)))

    assert seen == [["r1", "r2", "r3"]] * 16


def test_only_robots_that_are_online_take_part_under_the_registers_words(fleet):
    assert fleet.online() == []

    node_id = bring_online(fleet, "r2")

    (robot,) = fleet.online()
    assert (robot.node_id, robot.name, robot.site) == (node_id, "r2", "hall-2")


def suspend(register):
    register.suspend("r1", "test")


def put_back_to_pending(register):
    """Write what an operator's editor does."""
    register._write(
        tuple(
            r.model_copy(update={"state": "pending"}) if r.name == "r1" else r
            for r in register.robots()
        )
    )


@pytest.mark.parametrize("take_away", [suspend, put_back_to_pending])
def test_a_robot_that_is_approved_no_more_takes_no_part_and_loses_its_node(
    fleet, grid, register, take_away
):
    node_id = bring_online(fleet, "r1")
    assert [robot.name for robot in fleet.online()] == ["r1"]
    take_away(register)

    assert fleet.online() == []
    assert names(fleet) == ["r2"]
    assert node_id not in grid.registered()


def test_a_robot_that_restarts_is_offline_until_it_comes_back(fleet, register):
    bring_online(fleet, "r1")
    bring_online(fleet, "r2")
    (robot,) = (robot for robot in register.robots() if robot.name == "r1")

    fleet.restarted(robot)

    assert [robot.name for robot in fleet.online()] == ["r2"]


@pytest.fixture
def asked(fleet, grid, monkeypatch):
    """Ask r1 and r2; return name -> ticket and a way to let replies arrive."""
    for name in ("r1", "r2"):
        bring_online(fleet, name)
    grid.open_run()
    nodes = {robot.name: robot.node_id for robot in fleet.online()}
    tickets = {robot.name: t for t, robot in fleet.send(fleet.online(), REQUEST, 60.0).items()}

    def arrive(name, **what):
        arrived = [Arrived(message_id=tickets[name], node_id=nodes[name], **what)]
        monkeypatch.setattr(grid, "pull", lambda _: arrived)
        return fleet.replies(list(tickets.values()))[0]

    yield SimpleNamespace(tickets=tickets, arrive=arrive)
    monkeypatch.undo()
    grid.close_run(completed=True)


def update(**changes):
    values = {"robot": "somebody else", "base_version": 7, "num_examples": 5, "num_steps": 1}
    return pack_update(Update(**{**values, "weights": WEIGHTS, **changes}))


def test_robots_that_announce_any_higher_number_get_one_and_the_same_message(
    fleet, grid, monkeypatch
):
    pushed = []

    def push(content, nodes, ttl_s, kind):
        pushed.append(nodes)
        return {f"t{node}": node for node in nodes}

    monkeypatch.setattr(grid, "push", push)
    robots = [
        Participant(node_id=number, name=f"r{number}", site="hall", protocol=number)
        for number in (1, 2, 3, 900_000)
    ]
    assert len(fleet.send(robots, REQUEST, 60.0)) == 4
    assert sorted(pushed) == [[1], [2, 3, 900_000]]


def test_an_old_agent_trains_without_an_option_that_only_helps_and_the_log_says_so_once(
    fleet, grid, monkeypatch, caplog
):
    sent = {}
    monkeypatch.setattr(
        grid, "push", lambda content, nodes, *_: sent.update(dict.fromkeys(nodes, content)) or {}
    )
    robots = [
        Participant(node_id=number, name=f"r{number}", site="hall", protocol=number)
        for number in (1, 2)
    ]
    request = replace(REQUEST, config=replace(REQUEST.config, logit_adjustment=1.0))

    for _ in range(2):
        fleet.send(robots, request, 60.0)

    assert unpack_request(sent[1]).config == REQUEST.config
    assert unpack_request(sent[2]).config == request.config
    assert caplog.messages == [
        "r1: an agent of an earlier release, which trains without training.logit_adjustment: "
        "update it"
    ]


def test_every_robot_has_a_ticket_and_nothing_has_arrived_at_once(asked, fleet):
    assert asked.tickets.keys() == {"r1", "r2"}
    assert fleet.replies(list(asked.tickets.values())) == []


def test_an_update_carries_the_name_of_the_register_not_the_robots_own(asked):
    reply = asked.arrive("r2", content=update())

    assert reply.ticket == asked.tickets["r2"]
    assert reply.update.robot == "r2"


def test_a_robots_reason_is_kept_but_not_at_any_length(asked):
    reply = asked.arrive("r1", content=Outcome("failed", "disk full " * 1000))

    assert reply.update is None
    assert reply.outcome.words.startswith("disk full")
    assert len(reply.outcome.words) == 300


def test_an_update_that_cannot_be_read_is_a_reason(asked):
    content = update()
    del content[METRICS]

    outcome = asked.arrive("r1", content=content).outcome
    assert outcome == Outcome("refused", "the reply lacks the record 'metrics'")


def test_an_update_of_nothing_is_a_reason(asked):
    assert "expected > 0" in asked.arrive("r1", content=update(num_examples=0)).outcome.text
