"""How the server logs: one line an event on stderr, as text for people or JSON for machines.

A line says in words what happened; what a machine would sort by goes beside the words as fields:
`log.info("round %d closed", 3, extra={"run": "20260101-120000", "round": 3})`. The usual fields
are run, round, robot, site, version. Robots' own words may stand in a message, so everything that
could begin a new line or move a terminal's cursor is escaped.
"""

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud_server.state.words import with_directory
from fleet_model.command_line.systemd import JournalLines, in_journal
from fleet_model.errors import one_line

if TYPE_CHECKING:
    from cloud_server.state.settings import LogSettings

OURS = ("cloud_server", "fleet_model")
REPEAT_S = 60.0
MAX_SAID = 1000  # what strangers say must not fill the memory
NOISY = ("httpx", "alembic")  # they tell every request and every migration at level info
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class Seldom:
    """Lets the same be said `burst` times in REPEAT_S; how often it was not said is told then.

    A robot may repeat a request two hundred times a second, for months. Thread-safe.
    """

    def __init__(self, burst: int = 1, now_s: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._now_s = burst, now_s
        self._lock = threading.Lock()
        self._said: dict[object, tuple[float, int]] = {}  # since when, how often it was meant to be

    def more(self, key: object) -> str | None:
        """Return what to add to the words that `key` stands for; None: they are not said now."""
        now_s = self._now_s()
        with self._lock:
            since_s, count = self._said.pop(key, (-math.inf, 0))
            if now_s - since_s >= REPEAT_S:
                left_out, since_s, count = max(0, count - self._burst), now_s, 0
            else:
                left_out = 0
            self._said[key] = since_s, count + 1
            if len(self._said) > MAX_SAID:
                del self._said[next(iter(self._said))]
        if count >= self._burst:
            return None
        return f" (and {left_out} times more until now)" if left_out else ""


class SeldomLines(logging.Filter):
    """Of a library that logs for every request: the lines of one place a few times a minute."""

    def __init__(self, burst: int = 5, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seldom = Seldom(burst, now_s)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is written; how many were not is added to it."""
        more = self._seldom.more((record.name, record.levelno, record.pathname, record.lineno))
        if more:
            record.msg, record.args = record.getMessage() + more, ()
        return more is not None


class TextLines(logging.Formatter):
    """Time, level (the journal has both itself), words. An exception follows on indented lines."""

    def __init__(self) -> None:
        super().__init__("%(message)s" if in_journal() else "%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """Return the event on one line."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name)
        """Return the traceback, so that none of its lines can pass for an event."""
        return "\n".join(f"  | {one_line(x)}" for x in super().formatException(ei).splitlines())


class JsonLines(logging.Formatter):
    """One object a line: time (ISO 8601, UTC), level, logger, message, then the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event on one line."""
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in line:
                line[name] = _plain(value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, allow_nan=False)


FORMATS = {"text": TextLines, "json": JsonLines}


class _Directory(logging.Filter):
    """Name the server's directory in the commands that a message holds."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        record.msg, record.args = with_directory(record.getMessage(), self._directory), ()
        return True


def log_to_stderr(settings: "LogSettings", directory: Path) -> None:
    """Send every logger, warning and uncaught exception of this process to stderr.

    Level debug is about this project: libraries stay at info, for what they tell below it may
    hold whole requests. A process that logs already, such as a test's, keeps its handlers.
    """
    handler = logging.StreamHandler(sys.stderr)
    lines = FORMATS[settings.format]()
    handler.setFormatter(JournalLines(lines) if in_journal() else lines)
    handler.addFilter(_Directory(directory))
    level = logging.getLevelName(settings.level.upper())
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    log = logging.getLogger(__name__)
    sys.excepthook = lambda *error: log.critical("unexpected end", exc_info=error)
    threading.excepthook = lambda args: log.critical(
        "thread %s has ended unexpectedly",
        args.thread.name if args.thread else "?",
        exc_info=args.exc_value,
    )


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value)
