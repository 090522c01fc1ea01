"""Requests that are held until there is something for their robot: idle robots cost little.

A held request is one suspended task and no thread. What may end one is looked up for all of them at
once: one query for all robots' questions, a few stats for the models. Nothing is handed out here; a
robot that hears of a question fetches it, so a connection that has died loses none. A round that
asks a thousand robots tells a few dozen at a time: each that has fetched makes room for the next,
and the answers of the first go before the questions to the last.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cloud_server.robots.register import Robot
from fleet_model.errors import SettingsError

LOOK_S = 0.5  # between two looks at what nobody tells of, such as a command that publishes
ALIVE_S = 10.0  # between two heartbeats that held robots are spared
ONLINE_S = 60.0  # how long one counts, as Flower's
MOST_TOLD = 32  # robots that know of a question and have not fetched it
FETCH_S = 15.0  # after so long another one is told in the place of one that does not come
log = logging.getLogger(__name__)


class Questions(Protocol):
    """What robots are asked; see flower/whole_messages.py."""

    def waiting(self) -> set[int]:
        """Return the nodes that have a question which they have not been handed."""

    def stay_online(self, node_ids: Collection[int], seconds: float) -> set[int]:
        """Do what a heartbeat of each node does; return those that are online."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a robot is told at the end of a held request."""

    message: bool  # a question waits for it
    tag: str  # of the models and rollouts; another one than the robot's: it should look
    alive: bool  # it was spared a heartbeat meanwhile


@dataclass(eq=False, slots=True)
class _Held:
    robot: Robot
    tag: str
    over: asyncio.Event = field(default_factory=asyncio.Event)
    alive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What one look has found."""

    waiting: set[int] = field(default_factory=set)  # node ids; changed by `handed_out`
    nodes: Mapping[str, int] = field(default_factory=dict)  # key -> node id of who may train
    tag: str = ""


class News:
    """The held requests of one server; lives in its event loop, but for `wake`."""

    def __init__(
        self,
        questions: Questions,
        nodes: Callable[[], Mapping[int, Robot]],
        now_registered: Callable[[str], Robot | None],
        seen: Callable[[str], None],
        store: Path,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """Hold nothing yet.

        Args:
            questions: of the robots.
            nodes: node id -> robot of those that may train.
            now_registered: the robot with a key, as the register has it now.
            seen: is told the names of robots that are there.
            store: folder of what robots install.
            busy: whether robots wait for the server: then it tells no more of them to come.
        """
        self._questions, self._nodes, self._now_registered = questions, nodes, now_registered
        self._seen, self._store, self._busy = seen, store, busy
        self._held: dict[str, _Held] = {}  # by the robot's key
        self._found = _Found()
        self._told: dict[int, float] = {}  # node id -> when (monotonic), until it fetches
        self._looked_s = self._spared_s = float("-inf")  # monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look_now = asyncio.Event()
        self._turning: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._closed = False

    @property
    def held(self) -> int:
        """Return how many robots wait."""
        return len(self._held)

    def wake(self) -> None:
        """Look at once: robots have been asked. From any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look_now.set)

    def node_of(self, robot: Robot) -> int | None:
        """Return the node id of a robot that may train, None of another one."""
        return self._found.nodes.get(robot.key)

    def handed_out(self, node_id: int) -> None:
        """Take note that a node has its question, and tell the next one of its own."""
        self._found.waiting.discard(node_id)
        self._told.pop(node_id, None)
        self._tell_of_questions()

    def close(self) -> None:
        """Let everybody go, for good: the server ends."""
        self._closed = True
        for held in self._held.values():
            held.over.set()

    async def wait(
        self, robot: Robot, tag: str, hold_s: float, gone: Callable[[], Coroutine[Any, Any, None]]
    ) -> Answer:
        """Return when there is something for a robot, or after a while.

        Args:
            robot: who asks; what it has asked before and is still held ends.
            tag: that it was told last.
            hold_s: the longest that it waits.
            gone: ends when the robot has hung up.
        """
        if (before := self._held.pop(robot.key, None)) is not None:
            before.over.set()
        await self.refresh(robot)
        held = _Held(robot, tag)
        if not self._closed and not self._has_news(held):
            self._held[robot.key] = held
            if self._turning is None or self._turning.done():
                self._turning = asyncio.create_task(self._turn())
            await _until_one(held.over.wait(), gone(), hold_s)
            if self._held.get(robot.key) is held:
                del self._held[robot.key]
        node_id = self.node_of(robot)
        return Answer(message=node_id in self._found.waiting, tag=self._found.tag, alive=held.alive)

    async def refresh(self, robot: Robot) -> None:
        """Look, unless that was done lately and with this robot as it is now."""
        self._loop = asyncio.get_running_loop()
        if self._is_old(robot):
            async with self._looking:
                if self._is_old(robot):  # else one look has served all that waited for it
                    await self._look_alone()

    def _is_old(self, robot: Robot) -> bool:
        late = time.monotonic() - self._looked_s > 2 * LOOK_S  # while some are held: seldom
        return late or (robot.state == "approved") != (robot.key in self._found.nodes)

    def _has_news(self, held: _Held) -> bool:
        robot, found = held.robot, self._found
        return found.nodes.get(robot.key) in found.waiting or held.tag != found.tag

    def _has_changed(self, robot: Robot) -> bool:
        try:
            now = self._now_registered(robot.key)
        except SettingsError:  # the register is damaged: robots stay as they were
            return False
        return now is not robot and now != robot

    async def _turn(self) -> None:
        """Look again and again while robots are held."""
        while self._held and not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self._look()
                await self._spare_heartbeats()
            except Exception:  # such as of a locked database: the next look may succeed
                log.exception("what robots wait for cannot be looked up")
            self._tell_of_questions()
            for held in list(self._held.values()):
                if held.tag != self._found.tag or self._has_changed(held.robot):
                    held.over.set()

    def _tell_of_questions(self) -> None:
        """Let go of robots that are asked, while few others are on their way to fetch."""
        now_s = time.monotonic()
        for node_id in [n for n, at_s in self._told.items() if now_s - at_s > FETCH_S]:
            del self._told[node_id]
        for held in self._held.values():
            if len(self._told) >= MOST_TOLD or self._busy():
                return
            node = self.node_of(held.robot)
            if node is not None and node in self._found.waiting and not held.over.is_set():
                self._told[node] = now_s
                held.over.set()

    async def _look(self) -> None:
        async with self._looking:
            await self._look_alone()

    async def _look_alone(self) -> None:
        """Look; the caller holds `_looking`."""
        self._found = await asyncio.to_thread(self._find)
        self._looked_s = time.monotonic()

    def _find(self) -> _Found:
        nodes = {robot.key: node_id for node_id, robot in self._nodes().items()}
        return _Found(waiting=self._questions.waiting(), nodes=nodes, tag=tag_of(self._store))

    async def _spare_heartbeats(self) -> None:
        """Keep robots online that are held: they need not say so by themselves."""
        if time.monotonic() - self._spared_s < ALIVE_S:
            return
        self._spared_s = time.monotonic()
        spared = list(self._held.values())
        nodes = {held: node for held in spared if (node := self.node_of(held.robot)) is not None}
        online = await asyncio.to_thread(
            self._questions.stay_online, list(nodes.values()), ONLINE_S
        )
        for held in spared:
            held.alive = nodes.get(held) in online
            self._seen(held.robot.name)


def tag_of(store: Path) -> str:
    """Return what changes whenever robots should look at what is published."""
    files = [store / "metadata" / "timestamp.json"]
    for folder in ("channels", "rollouts"):
        files += sorted((store / folder).rglob("*.json"))
    words = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        words.append(f"{status.st_mtime_ns:x}-{status.st_ino:x}")
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


async def _until_one(
    first: Coroutine[Any, Any, Any], second: Coroutine[Any, Any, Any], most_s: float
) -> None:
    """Return when one of two has ended, or after a while; neither goes on."""
    tasks = [asyncio.create_task(one) for one in (first, second)]
    try:
        await asyncio.wait(tasks, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
