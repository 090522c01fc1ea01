"""The process that computes, as the one with the port sees it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cloud_server.departments.job import EngineJob
from fleet_model import errors
from fleet_model.errors import BundleError, BusyError, FleetError, RoundError

PROGRAM = ("-m", "cloud_server.departments")  # by its name: PyTorch is loaded there alone
LEAVE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One text that is to go on."""

    adapter: str  # key of a loaded one
    ids: list[int]
    most: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """What has come of it since the last one."""

    token: int | None
    ends: str  # "": more comes; else "stop" or "length"


class Answer:
    """What comes of one text; who has no use for it any longer closes it."""

    def __init__(
        self, pieces: "asyncio.Queue[Piece | FleetError]", leave: Callable[[str], object]
    ) -> None:
        self._pieces, self._leave = pieces, leave
        self._ends, self._closed = "", False

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield what comes.

        Raises:
            BundleError: it could not be computed.
            RoundError: the process has ended.
        """
        while not self._ends:
            piece = await self._pieces.get()
            if isinstance(piece, FleetError):
                self._ends = "error"
                raise piece
            self._ends = piece.ends
            yield piece

    def close(self) -> None:
        """Leave undone what is not done."""
        if not self._closed:
            self._closed = True
            self._leave(self._ends)


class Engine:
    """Use it from one event loop."""

    def __init__(self, job: EngineJob, most_open: int, ended: Callable[[], object]) -> None:
        """Start nothing.

        Args:
            job: what is loaded.
            most_open: texts that go on or wait, together.
            ended: is told when the process has ended by itself.
        """
        self._job, self._most_open, self._ended = job, most_open, ended
        self._child: asyncio.subprocess.Process | None = None
        self._open: dict[int, asyncio.Queue[Piece | FleetError]] = {}
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._number = 0
        self.about: dict[str, Any] = {}  # once started: memory_mb, device
        self.failure: FleetError | None = None  # why it has ended

    @property
    def open(self) -> int:
        """Return how many texts go on or wait."""
        return len(self._open)

    async def start(self) -> None:
        """Load the base.

        Raises:
            FleetError: as the process says; BundleError if it dies.
        """
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            *PROGRAM,
            self._job.model_dump_json(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(self._job.threads)},
            start_new_session=True,
        )
        assert self._child.stdout is not None
        line = await self._child.stdout.readline()
        if not line:
            raise await self._why()
        told = json.loads(line)
        if "error" in told:
            raise getattr(errors, told["error"], BundleError)(told["message"])
        self.about = told["ready"]
        self._reading = asyncio.create_task(self._read(), name="departments-engine")

    async def close(self) -> None:
        """End the process; what it computes is left."""
        if self._reading is not None:
            self._reading.cancel()
        child = self._child
        if child is None or child.returncode is not None:
            return
        assert child.stdin is not None
        child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), LEAVE_S)
        except TimeoutError:
            child.kill()
            await child.wait()

    async def load(self, key: str, folder: Path) -> None:
        """Load an adapter, and try it.

        Raises:
            BundleError: it cannot be used; nothing has changed.
            RoundError: the process has ended.
        """
        self._require()
        loaded = self._loading[key] = asyncio.get_running_loop().create_future()
        await self._order({"load": key, "folder": str(folder)})
        await loaded

    async def drop(self, key: str) -> None:
        """Forget an adapter; texts that go on with it keep it to their end."""
        with suppress(RoundError):
            await self._order({"drop": key})

    def begin(self, wanted: Wanted) -> "Answer":
        """Ask at once; the adapter stays for this text whatever is dropped from now on.

        Raises:
            BusyError: too many wait already.
            RoundError: the process has ended.
        """
        self._require()
        if len(self._open) >= self._most_open:
            raise BusyError(f"{len(self._open)} requests are under way; ask again later")
        self._number += 1
        pieces = self._open[self._number] = asyncio.Queue[Piece | FleetError]()
        self._write({"ask": self._number, **asdict(wanted)})
        return Answer(pieces, partial(self._leave, self._number))

    def _leave(self, number: int, ends: str) -> None:
        del self._open[number]
        if not ends:
            with suppress(RoundError):
                self._write({"leave": number})

    async def _order(self, line: dict[str, Any]) -> None:
        self._write(line)
        assert self._child is not None
        assert self._child.stdin is not None
        with suppress(OSError):  # _read tells of it
            await self._child.stdin.drain()

    def _write(self, line: dict[str, Any]) -> None:
        self._require()
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(line).encode() + b"\n")

    def _require(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def _read(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        async for line in self._child.stdout:
            self._take(json.loads(line))
        self.failure = await self._why()
        for pieces in self._open.values():
            pieces.put_nowait(self.failure)
        for loading in self._loading.values():
            if not loading.done():
                loading.set_exception(self.failure)
        self._ended()

    def _take(self, told: dict[str, Any]) -> None:
        if "loaded" in told:
            self._loading.pop(told["loaded"]).set_result(None)
        elif "failed" in told:
            self._loading.pop(told["failed"]).set_exception(BundleError(told["message"]))
        elif (pieces := self._open.get(told["ask"])) is not None:
            if "error" in told:
                pieces.put_nowait(BundleError(told["error"]))
            else:
                pieces.put_nowait(Piece(told.get("token"), told.get("ends", "")))

    async def _why(self) -> RoundError:
        assert self._child is not None
        code = await self._child.wait()
        why = "the system has ended it, for want of memory?" if code == -9 else "see its words"
        return RoundError(f"the process that answers has ended ({code}): {why}")
