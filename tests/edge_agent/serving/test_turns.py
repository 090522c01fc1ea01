"""Whose request is next, and how many may wait."""

import asyncio
import threading
import time

import pytest

from edge_agent.serving.request import RequestError
from edge_agent.serving.turns import QUICK_BYTES, Turns

pytestmark = pytest.mark.base

MOST = 10**7  # bytes


@pytest.fixture
def held():
    """Return turns whose thread works on a job until it is let go, and what lets it go."""
    turns, gate = Turns(max_waiting=6, max_bytes=MOST), threading.Event()
    yield turns, gate
    gate.set()
    turns.close(240)


async def begin(turns, gate, first="first"):
    """Occupy the thread; return the task."""
    busy = threading.Event()
    task = asyncio.create_task(
        turns.run(first, QUICK_BYTES + 1, lambda: busy.set() or gate.wait(240))
    )
    await asyncio.to_thread(busy.wait, 240)
    return task


def test_a_client_with_many_requests_waits_for_itself(held):
    turns, gate = held
    done = []

    async def ask():
        first = await begin(turns, gate)
        asked = ["greedy", "greedy", "greedy", "modest", "other"]
        jobs = [
            asyncio.create_task(turns.run(who, 1, lambda n=n, who=who: done.append((who, n))))
            for n, who in enumerate(asked)
        ]
        while turns.waiting < len(asked):
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *jobs)

    asyncio.run(ask())
    assert done == [("greedy", 0), ("modest", 3), ("other", 4), ("greedy", 1), ("greedy", 2)]


def test_so_many_wait_and_so_many_bytes_and_one_client_has_half_of_the_places(held):
    turns, gate = held
    refused = []

    async def try_one(who, size):
        try:
            await turns.run(who, size, lambda: None)
        except RequestError as error:
            refused.append((who, error.kind, str(error)))

    async def ask():
        first = await begin(turns, gate)
        jobs = []
        many = [*[("a", 1)] * 4, ("b", MOST - 2), ("b", MOST - 3), ("c", 0), ("d", 0), ("e", 0)]
        for who, size in many:
            jobs.append(asyncio.create_task(try_one(who, size)))
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *jobs)

    asyncio.run(ask())
    assert [(who, kind) for who, kind, _ in refused] == [
        ("a", "full"), ("b", "full"), ("e", "full"),
    ]  # fmt: skip
    assert "of this connection" in refused[0][2]
    assert turns.waiting == 0


def test_who_has_gone_takes_no_turn(held):
    turns, gate = held
    done = []

    async def ask():
        first = await begin(turns, gate)
        gone = asyncio.create_task(turns.run("gone", 1, lambda: done.append("gone")))
        last = asyncio.create_task(turns.run("last", 1, lambda: done.append("last")))
        while turns.waiting < 2:
            await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, last)

    asyncio.run(ask())
    assert done == ["last"]


def test_a_job_that_fails_says_so_to_its_client_alone(held, caplog):
    turns, _ = held

    def broken():
        raise KeyError("/home/robot/secret")

    async def ask():
        with pytest.raises(RequestError) as failed:
            await turns.run("a", 1, broken)
        assert failed.value.kind == "failed"
        assert "secret" not in str(failed.value)
        assert await turns.run("a", 1, lambda: 3) == 3

    asyncio.run(ask())
    assert "secret" in caplog.text  # the robot's own log has it


def test_what_waits_at_the_end_is_done_and_nothing_more_is_taken():
    turns, gate = Turns(max_waiting=4, max_bytes=MOST), threading.Event()

    async def ask():
        first = await begin(turns, gate)
        second = asyncio.create_task(turns.run("b", 1, lambda: "done"))
        while turns.waiting < 1:
            await asyncio.sleep(0)
        turns.close(0)
        with pytest.raises(RequestError, match="ending"):
            await turns.run("c", 1, lambda: None)
        gate.set()
        await first
        assert await second == "done"

    asyncio.run(ask())


def test_a_quick_job_is_done_in_the_loop_and_never_beside_another_one(held, monkeypatch):
    turns, gate = held
    monkeypatch.setattr("edge_agent.serving.turns.QUICK_S", 60.0)

    async def ask():
        here = threading.get_ident()
        assert await turns.run("a", 1, threading.get_ident) == here
        assert await turns.run("a", QUICK_BYTES + 1, threading.get_ident) != here
        first = await begin(turns, gate)  # in the loop it would wait for ever
        second = asyncio.create_task(turns.run("b", 1, threading.get_ident))
        await asyncio.sleep(0)  # it asks
        gate.set()
        await first
        return await second, here

    there, here = asyncio.run(ask())
    assert there != here


def test_a_slow_job_is_the_last_one_in_the_loop(held):
    turns, _ = held

    async def ask():
        here = threading.get_ident()
        await turns.run("a", 1, lambda: None)
        while await turns.run("a", 1, threading.get_ident) != here:  # the machine was busy
            pass
        await turns.run("a", 1, lambda: time.sleep(0.002))
        assert await turns.run("a", 1, lambda: time.sleep(0.002) or threading.get_ident()) != here

    asyncio.run(ask())
