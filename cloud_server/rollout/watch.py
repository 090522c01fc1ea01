"""Takes the steps of rollouts in a thread of the running server."""

import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter

from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from cloud_server.rollout.changes import change, finish
from cloud_server.rollout.decide import decide
from cloud_server.rollout.members import members_of
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import Rollout, RolloutFiles
from fleet_model.errors import FleetError
from fleet_model.protocol.rollout import ADVANCING, HALTED

LOOK_S = 2.0
log = logging.getLogger(__name__)


class RolloutWatch:
    """Looks at what robots report; each step is on disk before anything follows from it."""

    def __init__(
        self,
        server_dir: ServerDirectory,
        register: Register,
        seen: LastSeen,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """Start nothing yet."""
        self._server_dir, self._register, self._seen = server_dir, register, seen
        self._now_s = now_s
        self._ended = threading.Event()
        self._settled: set[str] = set()  # plans of which nothing is left to do
        self._told = ""

    def router(self) -> APIRouter:
        """Return routes, none, that let it look while the server runs."""

        @asynccontextmanager
        async def watching(_: object) -> AsyncIterator[None]:
            thread = threading.Thread(target=self._run, name="rollouts", daemon=True)
            thread.start()
            yield
            self._ended.set()

        return APIRouter(lifespan=watching)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.look()

    def look(self) -> None:
        """Take the steps that are due; what goes wrong is told once, and tried again."""
        try:
            for channel, rollout in RolloutFiles(self._server_dir.store).all().items():
                self._look_at(channel, rollout)
            self._told = ""
        except (FleetError, OSError) as error:
            if self._told != str(error):
                log.error("rollouts stand still: %s", error)
                self._told = str(error)

    def _look_at(self, channel: str, rollout: Rollout) -> None:
        if rollout.over or rollout.digest in self._settled:
            return
        if rollout.is_final:
            finish(self._server_dir, channel)
            self._settled.add(rollout.digest)
        elif rollout.state == ADVANCING and self._next(rollout) is not None:
            after = change(self._server_dir, channel, self._next)
            say = log.error if after.state == HALTED else log.info
            say(
                "rollout of version %d on channel %s is %s, %d of %d groups: %s",
                after.plan.next.version, channel, after.state, after.open, len(after.plan.groups),
                after.why,
            )  # fmt: skip

    def _next(self, rollout: Rollout) -> Rollout | None:
        if rollout.state != ADVANCING:  # a command was faster
            return None
        plan, now_s = rollout.plan, self._now_s()
        offers = DirectoryStore(self._server_dir.store).offers()
        step = decide(
            members_of(rollout, self._register, self._seen, offers),
            groups=len(plan.groups),
            open_groups=rollout.open,
            threshold=plan.threshold,
            waited_enough=now_s - rollout.since_s >= plan.wait_s,
            forgiven=rollout.forgiven,
        )
        if step is None:
            return None
        why = f"halted by itself: {step.why}" if step.state == HALTED else step.why
        return rollout.step(now_s, why, state=step.state, open=step.open, failed=step.failed)
