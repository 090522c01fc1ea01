"""The grid on a real SQLite link state, over the end of its process and of its robots."""

import time
from datetime import timedelta

import numpy as np
import pytest
from scripted_nodes import admit, content, objects, receive, reply

from cloud_server.flower import flower_link, flower_superlink
from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from fleet_model.protocol.outcome import NO_REPLY, NOT_ADMITTED
from fleet_model.protocol.wire import unpack_weights

pytestmark = pytest.mark.flower
TTL_S = 600.0


class Clock:
    """Unix time that can be put forward."""

    def __init__(self):
        self.ahead_s = 0.0

    def __call__(self):
        return time.time() + self.ahead_s


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    return str(tmp_path / "state.db")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def grid(database, clock):
    return LinkGrid(create_superlink(database, "127.0.0.1", 1), clock, clock)


@pytest.fixture
def again(database, clock):
    """Return a grid as the next process has it."""
    return lambda: LinkGrid(create_superlink(database, "127.0.0.1", 1), clock, clock)


def test_a_reply_that_nobody_has_made_safe_is_handed_to_the_next_process(grid, again):
    robot = admit(grid)
    run = grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    reply(grid, receive(grid, robot.node_id))
    assert len(grid.pull([ticket])) == 1

    after = again()
    assert after.open_run(run) == run
    assert after.still_open([ticket, "unknown"]) == {ticket}
    (arrived,) = after.pull([ticket])

    assert arrived.node_id == robot.node_id
    np.testing.assert_array_equal(unpack_weights(arrived.content["arrays"])["w"], 2.0)


def test_the_next_look_settles_what_the_last_one_returned(grid, again):
    robot = admit(grid)
    run = grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    reply(grid, receive(grid, robot.node_id))
    grid.pull([ticket])

    assert grid.pull([]) == []

    assert objects(grid) == 0
    after = again()
    after.open_run(run)
    assert after.still_open([ticket]) == set()


def test_a_run_survives_any_absence_of_its_server(grid, again, monkeypatch):
    from flwr.supercore.corestate import sql_corestate

    robot = admit(grid)
    run = grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], 1e7)
    real = sql_corestate.now
    monkeypatch.setattr(sql_corestate, "now", lambda: real() + timedelta(days=30))

    after = again()
    assert after.open_run(run) == run
    assert after.still_open([ticket]) == {ticket}


def test_a_run_that_has_ended_is_not_taken_up_but_another_begins(grid, again):
    run = grid.open_run()
    grid.close_run(completed=True)

    assert again().open_run(run) != run


def test_runs_of_processes_that_died_before_they_could_say_so_are_ended(grid, again):
    robot = admit(grid)
    lost = grid.open_run()
    grid.push(content(), [robot.node_id], TTL_S)

    after = again()
    after.open_run(None)

    from flwr.common.constant import Status

    (task,) = after._state.get_tasks(task_ids=[lost.task_id])
    assert task.finished_at
    running = after._state.get_tasks(statuses=[Status.RUNNING])
    assert [task.task_id for task in running] == [after._run.task_id]
    assert receive(after, robot.node_id) is None
    assert objects(after) == 0


def test_what_a_killed_process_sent_and_did_not_write_down_is_withdrawn(grid, again):
    robot = admit(grid)
    run = grid.open_run()
    grid.push(content(1.0), [robot.node_id], TTL_S)

    after = again()
    after.open_run(run)
    after.still_open([])
    (ticket,) = after.push(content(5.0), [robot.node_id], TTL_S)

    received = receive(after, robot.node_id)
    assert received.metadata.message_id == ticket
    assert receive(after, robot.node_id) is None


def test_what_it_wrote_down_stays(grid, again):
    first, second = admit(grid, "r1"), admit(grid, "r2")
    run = grid.open_run()
    (known,) = grid.push(content(1.0), [first.node_id], TTL_S)

    after = again()
    after.open_run(run)
    assert after.still_open([known]) == {known}
    after.push(content(1.0), [second.node_id], TTL_S)

    assert receive(after, first.node_id).metadata.message_id == known


def test_a_robot_that_died_with_its_message_is_handed_it_again(grid):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    receive(grid, robot.node_id)
    assert receive(grid, robot.node_id) is None

    grid.begin_session(robot.node_id)

    again = receive(grid, robot.node_id)
    assert again.metadata.message_id == ticket
    reply(grid, again)
    assert len(grid.pull([ticket])) == 1


def test_half_a_reply_of_the_old_process_does_not_stand_in_the_way(grid):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    received = receive(grid, robot.node_id)
    reply(grid, received, value=8.0, objects=1)
    assert grid.pull([ticket]) == []

    grid.begin_session(robot.node_id)
    reply(grid, receive(grid, robot.node_id), value=9.0)

    (arrived,) = grid.pull([ticket])
    np.testing.assert_array_equal(unpack_weights(arrived.content["arrays"])["w"], 9.0)


def test_what_a_robot_has_answered_is_not_asked_again(grid):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    reply(grid, receive(grid, robot.node_id))

    grid.begin_session(robot.node_id)

    assert receive(grid, robot.node_id) is None
    assert len(grid.pull([ticket])) == 1


def test_the_reply_of_a_robot_that_went_offline_after_it_counts(grid):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    reply(grid, receive(grid, robot.node_id))
    grid._state.deactivate_node(robot.node_id)

    (arrived,) = grid.pull([ticket])

    assert arrived.content is not None


def test_a_robot_that_is_offline_for_a_moment_is_waited_for_and_then_no_more(grid, clock):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    grid._state.deactivate_node(robot.node_id)

    clock.ahead_s = flower_link.GONE_S - 5
    assert grid.pull([ticket]) == []
    assert grid.still_open([ticket]) == {ticket}
    clock.ahead_s = flower_link.GONE_S + 5
    assert grid.still_open([ticket]) == set()
    (arrived,) = grid.pull([ticket])

    assert arrived.content.text == "it went offline and did not come back within 120 s"


def test_the_servers_own_absence_counts_against_no_robot(grid, again, clock):
    robot = admit(grid)
    run = grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)

    clock.ahead_s = 400.0
    after = again()
    after.open_run(run)

    assert after.pull([ticket]) == []
    assert after.still_open([ticket]) == {ticket}


def test_a_robot_that_may_take_part_no_longer_is_not_waited_for(grid):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)
    reply(grid, receive(grid, robot.node_id))

    grid.unregister(robot.node_id)

    (arrived,) = grid.pull([ticket])
    assert arrived.content == NOT_ADMITTED


def test_a_question_ends_with_its_time(grid, clock):
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)

    clock.ahead_s = TTL_S + 1
    grid._began_at = clock()  # it was never offline

    assert grid.still_open([ticket]) == set()
    assert grid.pull([ticket])[0].content == NO_REPLY


def test_replies_come_a_few_at_a_time_so_that_memory_stays_flat(grid, monkeypatch):
    monkeypatch.setattr(flower_link, "MAX_PULL_BYTES", 5000)
    robots = [admit(grid, f"r{n}") for n in range(4)]
    grid.open_run()
    tickets = grid.push(content(), [robot.node_id for robot in robots], TTL_S)
    for number, robot in enumerate(robots):
        reply(grid, receive(grid, robot.node_id), value=number, size=1000)

    looks = [grid.pull(tickets)]
    while looks[-1]:
        seen = {one.message_id for look in looks for one in look}
        looks.append(grid.pull(tickets.keys() - seen))

    assert [len(look) for look in looks] == [2, 2, 0]


def test_a_run_that_lasts_does_not_pile_up_what_nobody_answers(grid, clock):
    robot = admit(grid)
    grid.open_run()
    grid.push(content(1.0, 1000), [robot.node_id], TTL_S)
    before = objects(grid)
    assert before > 0
    for number in range(5):
        clock.ahead_s += TTL_S + 1
        grid.push(content(float(number), 1000), [robot.node_id], TTL_S)

    assert objects(grid) == before


def test_the_end_of_a_run_leaves_nothing_behind(grid):
    first, second = admit(grid, "r1"), admit(grid, "r2")
    grid.open_run()
    grid.push(content(), [first.node_id, second.node_id], TTL_S)
    reply(grid, receive(grid, first.node_id))
    receive(grid, second.node_id)

    grid.close_run(completed=True)

    assert objects(grid) == 0
    assert grid._state.num_message_ins() == grid._state.num_message_res() == 0


def test_connections_to_the_state_hold_little_memory_and_wait_for_each_other(grid):
    from sqlalchemy import text

    with grid._state.session() as session:
        for name, value in flower_superlink.PRAGMAS.items():
            assert session.scalar(text(f"PRAGMA {name}")) == int(value)


def test_a_clock_that_is_set_by_an_hour_and_back_ends_no_question_and_nobodys_session(database):
    ahead = [0.0]
    app = create_superlink(database, "127.0.0.1", 1)
    grid = LinkGrid(app, now=lambda: time.time() + ahead[0])
    robot = admit(grid)
    grid.open_run()
    (ticket,) = grid.push(content(), [robot.node_id], TTL_S)

    for jump_s in (3600.0, 0.0, 86_400.0, 0.0):
        ahead[0] = jump_s
        assert grid.pull([ticket]) == []
        assert grid.still_open([ticket]) == {ticket}
    reply(grid, receive(grid, robot.node_id))

    (arrived,) = grid.pull([ticket])
    np.testing.assert_array_equal(unpack_weights(arrived.content["arrays"])["w"], 2.0)
