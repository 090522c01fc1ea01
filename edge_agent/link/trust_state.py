"""What this robot trusts, for people: read from the files that it keeps, without python-tuf."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

SHOWN = 8  # characters of a key's id, as on the server


def trust_state(folder: Path) -> dict[str, Any]:
    """Return which keys count, since when, and until when what was verified last counts.

    What is not there, or damaged, is left out; without a root the answer is empty.

    Returns:
        root: its number; keys: that sign roots; needed: how many of them; since: when this robot
        began to trust here, UTC; root_since: when it followed to this root; until: the end of the
        timestamp, UTC.
    """
    found: dict[str, Any] = {}
    with suppress(OSError, ValueError, LookupError, TypeError):
        root = _signed(folder / "root.json")
        role = root["roles"]["root"]
        keys = sorted(str(one)[:SHOWN] for one in role["keyids"])
        found |= {"root": int(root["version"]), "keys": keys, "needed": int(role["threshold"])}
        found["since"] = _written(folder / "first.json")
        found["root_since"] = _written(folder / "root.json")
    with suppress(OSError, ValueError, LookupError, TypeError):
        found |= {"until": str(_signed(folder / "timestamp.json")["expires"])} if found else {}
    return found


def _signed(file: Path) -> Mapping[str, Any]:
    return dict(json.loads(file.read_bytes())["signed"])


def _written(file: Path) -> str:
    when = datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    return when.isoformat(timespec="seconds")
