"""The same question to many robots: its copies are what Flower would have stored."""

import sqlite3

import pytest
from scripted_nodes import admit, content, objects, receive, reply

from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from cloud_server.flower.questions import drop_trees

pytestmark = pytest.mark.flower
TABLES = {  # what is stored of a message, without what names it or says when
    "message_ins": "select group_id, run_id, src_node_id, reply_to_message_id, delivered_at, ttl, "
    "message_type, content, error from message_ins where message_id = ?",
    "objects": "select is_available, ref_count, length(content) > 0 from objects "
    "where object_id = ?",
    "object_children": "select child_id from object_children where parent_id = ?",
    "run_objects": "select run_id from run_objects where object_id = ?",
}


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    return LinkGrid(create_superlink(str(tmp_path / "state.db"), "127.0.0.1", 1))


def test_every_copy_is_stored_as_flower_stores_the_first_one(grid, tmp_path):
    robots = [admit(grid, f"r{number}") for number in range(3)]
    grid.open_run()

    sent = grid.push(content(), [robot.node_id for robot in robots], 600.0)

    with sqlite3.connect(tmp_path / "state.db") as database:
        stored = [
            {name: database.execute(query, (ticket,)).fetchall() for name, query in TABLES.items()}
            for ticket in sent
        ]
    assert len(stored) == 3
    assert all(rows for rows in stored[0].values())
    assert stored[1:] == [stored[0], stored[0]]
    assert list(sent.values()) == [robot.node_id for robot in robots]


def test_a_robot_that_is_not_there_is_left_out_wherever_it_stands(grid):
    robots = [admit(grid, f"r{number}") for number in range(4)]
    for gone in (0, 2):
        grid.unregister(robots[gone].node_id)
    grid.open_run()

    sent = grid.push(content(), [robot.node_id for robot in robots], 600.0)

    assert list(sent.values()) == [robots[1].node_id, robots[3].node_id]
    assert grid.push(content(), [robots[0].node_id], 600.0) == {}


def test_what_copies_share_stays_until_the_last_of_them_is_settled(grid):
    robots = [admit(grid, f"r{number}") for number in range(3)]
    grid.open_run()
    sent = grid.push(content(), [robot.node_id for robot in robots], 600.0)
    for robot in robots[:2]:
        reply(grid, receive(grid, robot.node_id))
    assert len(grid.pull(list(sent))) == 2

    grid.pull([])

    assert receive(grid, robots[2].node_id) is not None
    grid.close_run(completed=True)
    assert objects(grid) == 0


def test_trees_are_deleted_down_to_what_others_hold(grid):
    first, second = admit(grid, "r1"), admit(grid, "r2")
    grid.open_run()
    (mine,) = grid.push(content(1.0), [first.node_id], 600.0)
    (other,) = grid.push(content(2.0), [second.node_id], 600.0)
    before = objects(grid)

    drop_trees(grid._state, [mine])

    assert 0 < objects(grid) < before
    assert receive(grid, second.node_id) is not None
    drop_trees(grid._state, [other])
    assert objects(grid) == 0
