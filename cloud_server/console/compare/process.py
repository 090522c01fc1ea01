"""The process that computes, as the one with the port sees it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

from cloud_server.console.compare.contenders import Contender
from fleet_model import errors
from fleet_model.errors import BundleError, BusyError, RoundError

PROGRAM = ("-m", "cloud_server.console.compare.computing")
REPEATS = 3  # runs of each model for one question of a person
ANSWER_S = 60.0  # an answer, and the models' opening
IDLE_S = 600.0
MOST_WAITING = 4  # questions; each may be a picture in memory


class Process:
    """Asks one question at a time; thread-safe. A process that has died is begun anew."""

    def __init__(self, contenders: Sequence[Contender], idle_s: float = IDLE_S) -> None:
        """Start nothing.

        Args:
            contenders: the models.
            idle_s: after so long without a question the process ends: models need memory.
        """
        self.contenders, self._idle_s = tuple(contenders), idle_s
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._child: subprocess.Popen[bytes] | None = None
        self._models: list[dict[str, Any]] = []
        self._is_closed = False

    def models(self) -> list[dict[str, Any]]:
        """Return what was opened, see answering.py; start the process if there is none.

        Raises:
            FleetError: as the process says.
        """
        with self._turn():
            self._started()
            return self._models

    def answer(self, content: bytes, repeats: int = REPEATS) -> dict[str, Any]:
        """Return what the models say; see Answering.answer.

        Raises:
            FrameError: it cannot be read.
            BusyError: too many ask.
            FleetError: as the process says, or it has died.
        """
        with self._turn():
            told, _ = self._ask({"ask": "answer", "repeats": repeats}, content)
        return told

    def preview(self, content: bytes, side: int) -> bytes:
        """Return a picture as a small JPEG; raises as `answer`."""
        with self._turn(patient=True):
            return self._ask({"ask": "preview", "side": side}, content)[1]

    def close(self) -> None:
        """End the process; what it computes is left."""
        self._is_closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:  # who waits for an answer learns of it first
            child, self._child = self._child, None
            if child is not None:
                _end(child)

    @contextmanager
    def _turn(self, *, patient: bool = False) -> Iterator[None]:
        # A page asks for all of its small pictures at once.
        if not self._waiting.acquire(timeout=ANSWER_S if patient else 0):
            raise BusyError(f"{MOST_WAITING} questions are asked already; ask again in a moment")
        try:
            with self._lock:
                yield
        finally:
            self._waiting.release()

    def _ask(self, order: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        child = self._started()
        line = json.dumps({**order, "bytes": len(content)}).encode() + b"\n"
        with self._bounded(child):
            self._write(child, line, content)
            return self._read(child)

    def _write(self, child: "subprocess.Popen[bytes]", *parts: bytes) -> None:
        assert child.stdin is not None
        try:
            for part in parts:
                child.stdin.write(part)
            child.stdin.flush()
        except OSError:
            raise self._ended(child) from None

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._is_closed:
            raise RoundError("this comparison was closed; open it again")
        if self._child is not None and self._child.poll() is None:
            return self._child
        if self._child is not None:
            _end(self._child)
        child = self._child = subprocess.Popen(
            [sys.executable, *PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the one that asks
        )
        try:
            with self._bounded(child):
                self._write(child, self._job())
                self._models = self._read(child)[0]["models"]
        except errors.FleetError:
            _end(child)
            raise
        return child

    def _job(self) -> bytes:
        job = {"models": self.contenders, "idle_s": self._idle_s}
        return json.dumps(job).encode() + b"\n"

    def _read(self, child: "subprocess.Popen[bytes]") -> tuple[dict[str, Any], bytes]:
        assert child.stdout is not None
        line = child.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended(child)
        told = json.loads(line)
        if "error" in told:
            raise getattr(errors, told["error"], BundleError)(told["message"])
        content = child.stdout.read(told.get("bytes", 0))
        if len(content) < told.get("bytes", 0):
            raise self._ended(child)
        return told, content

    @contextmanager
    def _bounded(self, child: "subprocess.Popen[bytes]") -> Iterator[None]:
        timer = threading.Timer(ANSWER_S, child.kill)
        timer.daemon = True  # an interpreter that ends does not wait for it
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _ended(self, child: "subprocess.Popen[bytes]") -> RoundError:
        code = _end(child)
        return RoundError(
            f"the process that computes has ended ({code}) and is begun anew with the next "
            "question; the input may be too much for a model"
        )


def _end(child: "subprocess.Popen[bytes]") -> int:
    child.kill()
    _close(child.stdin)
    _close(child.stdout)
    return child.wait()


def _close(pipe: IO[bytes] | None) -> None:
    assert pipe is not None
    with suppress(OSError):  # it has not taken what was written
        pipe.close()
