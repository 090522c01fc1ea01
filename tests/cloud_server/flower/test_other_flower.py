"""A database that another version of Flower has written: an older one is taken over."""

import gzip
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from scripted_nodes import known_key, receive, reply

from cloud_server.flower.flower_link import FlowerRun, LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from fleet_model.errors import SettingsError
from fleet_model.protocol.wire import unpack_weights

pytestmark = pytest.mark.flower
OLDER = Path(__file__).parents[2] / "data" / "flower_state_1.41"  # data/make_flower_state.py
KNOWN = json.loads((OLDER / "expected.json").read_text())


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    file = tmp_path / "state.db"
    file.write_bytes(gzip.decompress((OLDER / "state.db.gz").read_bytes()))
    return file


@pytest.fixture
def grid(database):
    grid = LinkGrid(create_superlink(str(database), "127.0.0.1", 1))
    grid.heal(50)  # as the server does when it starts
    return grid


def revision(database):
    with sqlite3.connect(database) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def newest_revision():
    from alembic.script import ScriptDirectory
    from flwr.supercore.state import alembic

    return ScriptDirectory(str(Path(alembic.__file__).parent)).get_current_head()


def values(message):
    return unpack_weights(message.content["arrays"])["w"]


def test_a_database_of_flwr_1_41_is_brought_to_this_ones_revision(database):
    assert revision(database) == KNOWN["revision"]

    create_superlink(str(database), "127.0.0.1", 1)

    assert revision(database) == newest_revision()


def test_robots_keep_their_node_ids(grid):
    assert sorted(grid.registered()) == sorted(KNOWN["nodes"])
    assert [grid.register(known_key(n), f"r{n}") for n in (1, 2, 3)] == KNOWN["nodes"]


def test_the_run_that_was_open_continues_with_what_was_asked_and_replied(grid):
    first, second, third = KNOWN["tickets"]
    run = FlowerRun(run_id=KNOWN["run_id"], task_id=KNOWN["task_id"])

    assert grid.open_run(run) == run
    assert grid.still_open(KNOWN["tickets"]) == set(KNOWN["tickets"])
    (arrived,) = grid.pull(KNOWN["tickets"])
    assert (arrived.message_id, arrived.node_id) == (first, KNOWN["nodes"][0])
    np.testing.assert_array_equal(values(arrived), 2.0)

    grid.begin_session(KNOWN["nodes"][1])  # it died with its request
    for node_id, ticket in zip(KNOWN["nodes"][1:], (second, third), strict=True):
        received = receive(grid, node_id)
        assert received.metadata.message_id == ticket
        np.testing.assert_array_equal(values(received), 1.0)
        assert reply(grid, received, 3.0)
    assert {one.message_id for one in grid.pull([second, third])} == {second, third}


def test_a_database_of_a_newer_flwr_is_refused_with_the_two_ways_out(database):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")

    with pytest.raises(SettingsError, match=r"state\.db: was written by a newer flwr") as raised:
        create_superlink(str(database), "127.0.0.1", 1)

    assert "install that version of flwr again, or move the file away" in str(raised.value)
    assert revision(database) == "ffffffffffff"
