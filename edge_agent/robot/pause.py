"""Keep a robot out of training for a while: it has other work to do. A file, so that it lasts."""

import json
from pathlib import Path

from pydantic import ValidationError

from fleet_model.durable import remove_durably, write_durably
from fleet_model.errors import SettingsError, StorageError
from fleet_model.protocol.report import RobotReport

FILE = "paused.json"  # in the state directory
WITHOUT_REASON = "paused"


def pause(state: Path, reason: str) -> None:
    """Take part in no training until `resume`.

    Args:
        state: the state directory.
        reason: is sent to the server; "" is "paused".

    Raises:
        SettingsError: the reason is too long, or no line of text.
        StorageError: the file cannot be written.
    """
    try:
        report = RobotReport(busy=reason or WITHOUT_REASON)
    except ValidationError:
        raise SettingsError(
            f"--reason {reason[:40]!r}: expected one line of at most 100 characters"
        ) from None
    try:
        write_durably(state / FILE, json.dumps({"reason": report.busy}))
    except OSError as error:
        raise StorageError(f"{state / FILE}: {error.strerror}; run as the agent's user") from None


def resume(state: Path) -> bool:
    """Take part again; return whether there was a pause; raises StorageError."""
    try:
        remove_durably(state / FILE)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageError(f"{state / FILE}: {error.strerror}; run as the agent's user") from None
    return True


def pause_reason(state: Path) -> str:
    """Return why the robot is paused; "" if it is not. A damaged file is a pause, too."""
    try:
        reason = json.loads((state / FILE).read_text())["reason"]
        return RobotReport(busy=reason).busy or WITHOUT_REASON
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return WITHOUT_REASON
