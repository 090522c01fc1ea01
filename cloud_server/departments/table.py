"""Which adapter each department has; another one takes over between two requests.

A new adapter is copied, checked and loaded beside the old one, and tried. Then one assignment
swaps them: who was asked before is answered with the old one to the end. What cannot be used is
told once, and the department keeps what it has.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloud_server.departments.engine import Engine
from cloud_server.departments.sources import Offered, Source
from cloud_server.departments.verified import Verified, verified
from fleet_model.adapters.spec import LoraSpec
from fleet_model.errors import BundleError, FleetError, one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """What a department is answered with."""

    department: str
    what: str  # for people: "round 3", "version 7"
    adapter: Verified
    since_s: int  # Unix time


@dataclass(frozen=True, slots=True)
class Refused:
    """A newer adapter that could not be used."""

    what: str
    why: str


class Departments:
    """Use it from one event loop."""

    def __init__(self, source: Source, engine: Engine, base: LoraSpec) -> None:
        """Load nothing.

        Args:
            source: says which adapter each should have.
            engine: has the base.
            base: the adapters of the fleet.
        """
        self._source, self._engine, self._base = source, engine, base
        self._done: dict[str, tuple[object, ...]] = {}  # stamps that were loaded, or refused
        self._last: dict[str, tuple[object, ...]] = {}  # stamps of the last look
        self._trouble = ""
        self.served: dict[str, Served] = {}
        self.refused: dict[str, Refused] = {}
        self.swaps = 0

    async def begin(self) -> None:
        """Load what is there; raises BundleError if that is nothing."""
        await self.look(settled=False)
        if not self.served:
            why = [f"{name}: {one.why}" for name, one in self.refused.items()]
            why = why or [self._trouble or "there is none yet; train first"]
            raise BundleError(f"no department has an adapter to answer with: {why[0]}")

    async def follow(self, every_s: float) -> None:
        """Look again and again, for ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self, *, settled: bool = True) -> None:
        """Load what is new.

        Args:
            settled: only what is as it was at the last look: a file may be half written.
        """
        try:
            found = await asyncio.to_thread(self._source.look)
        except (FleetError, OSError) as error:
            self._tell_trouble(one_line(str(error)))
            return
        self._trouble = ""
        for name, offered in found.items():
            waits = settled and self._last.get(name) != offered.stamp
            if self._done.get(name) != offered.stamp and not waits:
                await self._bring(name, offered)
        self._last = {name: offered.stamp for name, offered in found.items()}

    async def _bring(self, name: str, offered: Offered) -> None:
        self._done[name] = offered.stamp
        try:
            with tempfile.TemporaryDirectory(prefix="adapter-") as folder:
                made = await asyncio.to_thread(self._copied, offered, Path(folder))
                if made.key not in self._keys():
                    await self._engine.load(made.key, Path(folder))
        except (BundleError, OSError) as error:
            self._refuse(name, offered.what, one_line(str(error)))
            if isinstance(error, OSError):  # of this machine's disk: tried again
                del self._done[name]
            return
        before = self._keys()
        self.served[name] = Served(name, offered.what, made, int(time.time()))
        self.refused.pop(name, None)
        self.swaps += 1
        log.info("department %s: %s, adapter %s", name, offered.what, made.key[:12])
        for key in before - self._keys():
            await self._engine.drop(key)

    def _refuse(self, name: str, what: str, why: str) -> None:
        refused = Refused(what, why)
        if self.refused.get(name) != refused:
            old = self.served.get(name)
            keeps = f"it keeps {old.what}" if old else "it has no other and is not answered"
            log.warning("department %s: %s is not used: %s; %s", name, what, why, keeps)
        self.refused[name] = refused

    def _copied(self, offered: Offered, into: Path) -> Verified:
        offered.bring(into)
        return verified(into, self._base)

    def _keys(self) -> set[str]:
        return {one.adapter.key for one in self.served.values()}

    def _tell_trouble(self, why: str) -> None:
        if why != self._trouble:
            log.warning("new adapters are not looked for: %s", why)
        self._trouble = why

    def as_json(self) -> list[Mapping[str, object]]:
        """Return what each department has, for people and programs."""
        found: list[Mapping[str, object]] = []
        for name in sorted({*self.served, *self.refused}):
            one, bad = self.served.get(name), self.refused.get(name)
            about: dict[str, object] = {"department": name}
            if one is not None:
                about |= {
                    "adapter": one.adapter.key[:12],
                    "what": one.what,
                    "rank": one.adapter.rank,
                    "since": one.since_s,
                }
            if bad is not None:
                about["refused"] = {"what": bad.what, "why": bad.why}
            found.append(about)
        return found
