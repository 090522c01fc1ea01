"""Which held requests end when many robots are asked; test_exchange.py has a real server."""

import asyncio
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import new_robot
from cloud_server.web import news as news_module
from cloud_server.web.news import MOST_TOLD, News, tag_of
from fleet_model.protocol.proof import public_line

ROBOTS = 3 * MOST_TOLD


def a_key():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


class Questions:
    """Every node has a question, from the moment that it is asked."""

    def __init__(self):
        self.asked = set()

    def waiting(self):
        return set(self.asked)

    def stay_online(self, node_ids, seconds):
        return set(node_ids)


class Round:
    """Robots that wait, and who of them has been told."""

    def __init__(self, store):
        self.questions, self.told = Questions(), []
        robots = {n: new_robot(f"r{n}", "hall", a_key()) for n in range(ROBOTS)}
        known = {robot.key: robot for robot in robots.values()}
        self.busy = False
        self.news = News(
            self.questions, lambda: robots, known.get, lambda _: None, store, lambda: self.busy
        )
        self.robots, self._tag = robots, tag_of(store)

    async def begin(self):
        tasks = [asyncio.create_task(self._wait(node)) for node in self.robots]
        while self.news.held < ROBOTS:
            await asyncio.sleep(0.01)
        self.questions.asked = set(self.robots)
        self.news.wake()
        return tasks

    async def _wait(self, node):
        answer = await self.news.wait(self.robots[node], self._tag, 60.0, asyncio.Event().wait)
        assert answer.message
        self.told.append(node)

    async def until(self, count):
        end = time.monotonic() + 60
        while len(self.told) < count and time.monotonic() < end:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # whoever is told too early
        return len(self.told)


@pytest.fixture
def asked(tmp_path):
    return Round(tmp_path)


def test_a_round_tells_a_few_robots_at_a_time_and_each_that_fetches_makes_room(asked):
    async def story():
        tasks = await asked.begin()
        assert await asked.until(MOST_TOLD) == MOST_TOLD
        for fetched in range(5):
            asked.questions.asked.discard(asked.told[fetched])
            asked.news.handed_out(asked.told[fetched])
        assert await asked.until(MOST_TOLD + 5) == MOST_TOLD + 5
        done = 5
        while done < ROBOTS:
            await asked.until(done + 1)
            node = asked.told[done]
            asked.questions.asked.discard(node)
            asked.news.handed_out(node)
            done += 1
        await asyncio.gather(*tasks)
        assert sorted(asked.told) == list(range(ROBOTS))

    asyncio.run(story())


def test_robots_that_never_fetch_keep_no_other_from_its_question(asked, monkeypatch):
    monkeypatch.setattr(news_module, "FETCH_S", 0.2)

    async def story():
        tasks = await asked.begin()
        assert await asked.until(ROBOTS) == ROBOTS
        await asyncio.gather(*tasks)

    asyncio.run(story())


def test_one_look_serves_all_who_wait_for_it(asked):
    looks = []
    waiting = asked.questions.waiting

    def slow():
        looks.append(time.monotonic())
        time.sleep(0.2)
        return waiting()

    asked.questions.waiting = slow

    async def story():
        await asyncio.gather(*(asked.news.refresh(robot) for robot in asked.robots.values()))

    asyncio.run(story())
    assert len(looks) == 1


def test_nobody_is_told_to_come_while_robots_wait_for_the_server(asked):
    async def story():
        asked.busy = True
        tasks = await asked.begin()
        await asyncio.sleep(3 * news_module.LOOK_S)
        assert asked.told == []
        asked.busy = False
        assert await asked.until(MOST_TOLD) == MOST_TOLD
        for task in tasks:
            task.cancel()

    asyncio.run(story())
