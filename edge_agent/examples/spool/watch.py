"""Have new bags of the spool read into the store while the agent continues.

A thread looks at the spool, which may lie on a disk that hangs, and starts a child process when a
bag is complete. So the agent itself loads nothing of what reading pictures needs, and no round
waits for it.
"""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_agent.examples.spool.recordings import TOTALS, Recording, Signature, Spool
from edge_agent.robot.child_process import import_paths
from edge_agent.robot.settings import AgentSettings

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "examples"  # in the state directory
_LEAST_S, _MOST_S = 0.1, 10.0  # between two looks
_RETRY_S, _LONGEST_RETRY_S = 30.0, 3600.0
_DAY_S = 86_400.0  # examples grow too old without a new bag as well
_GRACE_S = 0.3  # from SIGTERM to SIGKILL of the child; it may be killed at any moment
log = logging.getLogger(__name__)


class SpoolWatch:
    """Watches from `start` to `close`; passes the store's totals to `report` when they change."""

    def __init__(
        self, settings: AgentSettings, report: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """Keep what to watch; the settings name a spool."""
        assert settings.examples.spool is not None
        self._folder, self._store = settings.examples.spool, settings.state / FOLDER
        self._settings, self._report = settings, report
        self._spool = Spool(self._folder, settings.store.settle_s)
        self._pause_s = min(max(settings.store.settle_s / 2, _LEAST_S), _MOST_S)
        self._taken: dict[Path, Signature] = {}
        self._retry_s, self._not_before, self._last = _RETRY_S, 0.0, time.monotonic()
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._complaint = ""

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._watch, name="spool", daemon=True).start()

    def close(self) -> None:
        """End a child that is at work, and look no more; the next start continues."""
        self._stop.set()
        child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()

    def _watch(self) -> None:
        self._tell()
        while not self._stop.is_set():
            try:
                self._look()
            except OSError as error:
                self._complain(f"the spool {self._folder.name}: {error.strerror}")
            self._stop.wait(self._pause_s)

    def _look(self) -> None:
        complete = self._spool.complete()
        self._complain("")
        now_s = time.monotonic()
        new = any(self._taken.get(r.path) != r.signature for r in complete)
        if now_s < self._not_before or not (new or now_s > self._last + _DAY_S):
            return
        code = self._ingest(complete)
        if self._stop.is_set():
            return
        self._last = time.monotonic()
        if code == 0:
            self._taken = {r.path: r.signature for r in complete}
            self._retry_s = _RETRY_S
        else:  # its own words are in the log
            log.warning(
                "reading new bags has failed (%d); trying again in %.0f s", code, self._retry_s
            )
            self._not_before = self._last + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        self._tell()

    def _ingest(self, complete: list[Recording]) -> int:
        """Run the child; return its exit code."""
        examples, store = self._settings.examples, self._settings.store
        job = {
            "spool": str(self._folder),
            "store": str(self._store),
            "recordings": [str(recording.path) for recording in complete],
            "topic": examples.topic,
            "label_topic": examples.label_topic,
            "tolerance_s": examples.tolerance_s,
            "rate_hz": store.rate_hz,
            "min_sharpness": store.min_sharpness,
            "max_mb": store.max_mb,
            "max_age_days": store.max_age_days,
        }
        self._child = subprocess.Popen(
            [sys.executable, "-m", "edge_agent.examples.spool.ingest"],
            stdin=subprocess.PIPE,
            # One thread is enough for work that nobody waits for.
            env={**os.environ, "OMP_NUM_THREADS": "1", **import_paths()},
            start_new_session=True,  # Ctrl-C reaches the agent, which then ends the child
        )
        if self._stop.is_set():
            self._child.terminate()
        with suppress(BrokenPipeError):
            self._child.communicate(json.dumps(job).encode())
        return self._child.wait()

    def _tell(self) -> None:
        try:
            totals = json.loads((self._store / TOTALS).read_text())
        except (OSError, ValueError):
            return  # nothing was taken in yet
        self._report(totals)

    def _complain(self, text: str) -> None:
        """Log once what is wrong for long."""
        if text and text != self._complaint:
            log.warning("%s", text)
        self._complaint = text
