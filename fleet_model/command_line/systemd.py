"""Talk to systemd: readiness, status, watchdog, and how grave a log line is.

Everything here has no effect where there is no systemd. The protocol is sd_notify(3): a datagram to
$NOTIFY_SOCKET. Only the main process is heard (NotifyAccess=main), its children are not.
"""

import logging
import os
import socket
import sys

PATIENCE_S = 1.0  # a service manager that does not read must not stop the work
# Python's levels as syslog's, which the journal takes from the beginning of a line.
SYSLOG = {
    logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2,
}  # fmt: skip
log = logging.getLogger(__name__)


def notify(*lines: str) -> bool:
    """Send lines such as READY=1, STATUS=..., WATCHDOG=1; return whether they were sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.settimeout(PATIENCE_S)
            link.sendto("\n".join(lines).encode(errors="replace"), address)
    except OSError as error:
        log.warning("systemd is not told %s: %s", lines[0], error.strerror or error)
        return False
    return True


def watchdog_s() -> float | None:
    """Return how often WATCHDOG=1 is due: half of what systemd waits; None without a watchdog."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    is_for_us = pid in ("", str(os.getpid()))  # else for the process that started this one
    return int(usec) / 2e6 if usec.isdigit() and int(usec) and is_for_us else None


def in_journal() -> bool:
    """Return whether stderr goes to the journal, which adds time and process itself."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or replaced by something that is no file
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def level_prefix(level: int) -> str:
    """Return what begins a line of stderr of that level: "<3>" in the journal, "" elsewhere."""
    return f"<{SYSLOG.get(level, SYSLOG[logging.INFO])}>" if in_journal() else ""


class JournalLines(logging.Formatter):
    """Begin every line with its level; for the journal alone."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of `lines`, those of a traceback too, each with the level."""
        prefix = f"<{SYSLOG.get(record.levelno, SYSLOG[logging.INFO])}>"
        return "\n".join(prefix + line for line in self._lines.format(record).splitlines())
