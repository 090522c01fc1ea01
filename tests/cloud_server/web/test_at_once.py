"""Turns of requests: so many at once, sessions last, and nobody waits for ever."""

import asyncio

import pytest

from cloud_server.web.at_once import TOLD_S, AtOnce, TooManyError


class Work:
    """Requests that end when they are told; notes who has had a turn."""

    def __init__(self, most, patience_s=60.0):
        self.now_s = 100.0
        self.at_once = AtOnce(most, patience_s, lambda: self.now_s)
        self.began, self.ends = [], {}

    async def ask(self, name, *, last=False):
        self.ends[name] = asyncio.Event()
        async with self.at_once.turn(last=last):
            self.began.append(name)
            await self.ends[name].wait()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_so_many_at_once_and_the_others_in_the_order_in_which_they_came():
    async def story():
        work = Work(most=2)
        tasks = [asyncio.create_task(work.ask(name)) for name in "abcd"]
        await settle()
        assert work.began == ["a", "b"]
        work.ends["b"].set()
        await settle()
        assert work.began == ["a", "b", "c"]
        for name in "acd":
            work.ends[name].set()
        await asyncio.gather(*tasks)
        assert work.began == ["a", "b", "c", "d"]

    asyncio.run(story())


def test_a_session_begins_when_nothing_else_waits():
    async def story():
        work = Work(most=1)
        tasks = [asyncio.create_task(work.ask("a"))]
        await settle()
        tasks += [
            asyncio.create_task(work.ask(name, last=name == "first")) for name in ("first", "b")
        ]
        for name in ("a", "b", "first"):
            await settle()
            work.ends[name].set()
        await asyncio.gather(*tasks)
        assert work.began == ["a", "b", "first"]

    asyncio.run(story())


def test_who_waits_too_long_to_begin_a_session_is_sent_away_and_leaves_no_gap():
    async def story():
        work = Work(most=1, patience_s=0.05)
        task = asyncio.create_task(work.ask("a"))
        await settle()
        for _ in range(2):
            with pytest.raises(TooManyError):
                await work.ask("late", last=True)
        assert work.at_once.words()[0].startswith("2 sessions of robots were put off")
        patient = asyncio.create_task(work.ask("patient"))
        await asyncio.sleep(0.1)
        assert not patient.done()
        work.ends["a"].set()
        await task
        await settle()
        work.ends["patient"].set()
        await patient
        work.ends["b"] = asyncio.Event()
        task = asyncio.create_task(work.ask("b"))
        await settle()
        work.ends["b"].set()
        await task
        assert work.began == ["a", "patient", "b"]
        work.now_s += TOLD_S
        assert work.at_once.words() == []

    asyncio.run(story())


@pytest.mark.parametrize("error", [TimeoutError, ValueError, asyncio.CancelledError])
def test_what_fails_gives_its_turn_back_and_fails_as_itself(error):
    async def story():
        at_once = AtOnce(1, 60.0)
        for _ in range(3):
            with pytest.raises(error):
                async with at_once.turn(last=False):
                    raise error
        async with at_once.turn(last=True):
            pass
        assert at_once.words() == []

    asyncio.run(story())


def test_who_hangs_up_while_it_waits_takes_no_turn():
    async def story():
        work = Work(most=1)
        first = asyncio.create_task(work.ask("a"))
        await settle()
        gone = asyncio.create_task(work.ask("gone"))
        await settle()
        gone.cancel()
        await settle()
        work.ends["a"].set()
        await first
        async with work.at_once.turn(last=True):
            assert work.began == ["a"]

    asyncio.run(story())
