"""What an older version let into the database is out of it after the start of this one."""

import sqlite3

import pytest
from scripted_nodes import admit, content, objects, receive, reply

from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink

pytestmark = pytest.mark.flower
ANNOUNCED = 30_000


@pytest.fixture
def grids(tmp_path, monkeypatch):
    """Return what opens the grid of the next process."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    return lambda: LinkGrid(create_superlink(str(tmp_path / "state.db"), "127.0.0.1", 1))


def announce(tmp_path, root, run_id):
    """Hang very many objects below the reply `root`, in a chain and in a fan, with a circle."""
    names = [f"{number:064x}" for number in range(ANNOUNCED)]
    pairs = [(root, name) for name in names[: ANNOUNCED // 2]]
    pairs += list(zip(names, names[1:] + names[:1], strict=True))
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.executemany(
            "insert into objects (object_id, content, is_available, ref_count) "
            "values (?, '', 0, 1)",
            [(name,) for name in names],
        )
        database.executemany(
            "insert into object_children (parent_id, child_id) values (?, ?)", pairs
        )
        signed = run_id if run_id < 1 << 63 else run_id - (1 << 64)
        database.executemany(
            "insert into run_objects (run_id, object_id) values (?, ?)",
            [(signed, name) for name in names],
        )


def test_a_reply_that_was_far_too_large_is_gone_and_the_run_goes_on(grids, tmp_path):
    grid = grids()
    hostile, honest = admit(grid, "hostile"), admit(grid, "honest")
    run = grid.open_run()
    tickets = grid.push(content(), [hostile.node_id, honest.node_id], 600.0)
    reply(grid, receive(grid, hostile.node_id), objects=1)
    reply(grid, receive(grid, honest.node_id))
    of_hostile = next(t for t, node in tickets.items() if node == hostile.node_id)
    before = objects(grid)
    announce(tmp_path, grid._messages.answered(run.run_id)[of_hostile], run.run_id)

    after = grids()
    after.heal(50)

    assert after.open_run(run) == run
    assert objects(after) < before  # those of the bad reply are gone, too
    (arrived,) = after.pull(list(tickets))
    assert arrived.node_id == honest.node_id
    assert after.still_open([of_hostile]) == {of_hostile}  # it may still answer
    after.close_run(completed=True)
    assert objects(after) == 0


def edges(tmp_path):
    with sqlite3.connect(tmp_path / "state.db") as database:
        return set(database.execute("select parent_id, child_id from object_children"))


def references(tmp_path):
    with sqlite3.connect(tmp_path / "state.db") as database:
        return dict(database.execute("select object_id, ref_count from objects"))


def test_trees_of_an_older_version_become_lists_with_the_right_counts(grids, tmp_path):
    grid = grids()
    first, second = admit(grid, "first"), admit(grid, "second")
    run = grid.open_run()
    tickets = grid.push(content(), [first.node_id, second.node_id], 600.0)
    for robot in (first, second):
        reply(grid, receive(grid, robot.node_id))  # both the same, registered as Flower does
    replies = set(grid._messages.answered(run.run_id).values())
    (asked,) = {child for parent, child in edges(tmp_path) if parent in tickets}
    deeper = edges(tmp_path)
    a, b = "a" * 64, "b" * 64
    hostile = [(min(replies), a), (a, b), (b, a), (b, min(replies)), (b, max(replies))]
    with sqlite3.connect(tmp_path / "state.db") as database:
        add = (
            "insert into objects (object_id, content, is_available, ref_count) values (?, ?, 1, 7)"
        )
        database.executemany(add, [(a, b"x"), (b, b"x")])
        add = "insert into object_children (parent_id, child_id) values (?, ?)"
        database.executemany(add, hostile)

    after = grids()
    after.heal(50)

    now = edges(tmp_path)
    assert {parent for parent, _ in now} == {*tickets, asked, *replies}
    assert {p for p in now if p[0] in tickets} == {(ticket, asked) for ticket in tickets}
    assert {child for parent, child in now if parent == asked} == {
        child for parent, child in deeper if parent == asked
    }
    assert not {child for _, child in now} & replies
    counts = dict.fromkeys(references(tmp_path), 0) | dict.fromkeys(tickets, 1)  # kept whole
    for _, child in now:
        counts[child] += 1
    assert references(tmp_path) == counts
    assert after.open_run(run) == run
    assert {one.message_id for one in after.pull(list(tickets))} == set(tickets)
    after.close_run(completed=True)
    assert objects(after) == 0


def test_what_is_as_it_should_be_stays(grids):
    grid = grids()
    robot = admit(grid)
    run = grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], 600.0)
    reply(grid, receive(grid, robot.node_id), objects=1)
    before = objects(grid)

    after = grids()
    after.heal(50)

    assert objects(after) == before
    assert after.open_run(run) == run
    assert after.still_open([ticket]) == {ticket}
