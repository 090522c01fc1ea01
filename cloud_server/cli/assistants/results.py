"""What reaches an assistant: JSON values of bounded size, finite numbers, no keys."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fleet_model.errors import SettingsError, one_line

MAX_ITEMS = 200  # of one list or object
MAX_TEXT = 2000  # characters of one text
MAX_BYTES = 400_000  # of one answer
# A robot's public key, as `status` shows those that ask to take part.
_KEY = re.compile(r"\b(?:ecdsa|ssh|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]{40,}")


def plain(value: Any) -> Any:
    """Return JSON values: NaN and infinity become null, keys go, long parts are cut and told.

    A list that is cut leaves `<name>_left_out` beside it, with the number of what is missing.
    """
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return _object(value)
    if isinstance(value, Sequence):
        shown = [plain(one) for one in value[:MAX_ITEMS]]
        more = len(value) - MAX_ITEMS
        return [*shown, {"left_out": more}] if more > 0 else shown
    return value


def packed(value: dict[str, Any]) -> str:
    """Return the JSON of what `plain` returns; raises SettingsError if it is too long."""
    text = json.dumps(value, allow_nan=False)
    if len(text) > MAX_BYTES:
        raise SettingsError(
            f"the answer would have {len(text) / 1e3:.0f} kB, and at most {MAX_BYTES / 1e3:.0f} kB "
            "are sent: ask with a smaller limit"
        )
    return text


def page(name: str, items: Sequence[Any], offset: int, limit: int) -> dict[str, Any]:
    """Return a part of a list under its name, and how many are left out."""
    shown = items[offset : offset + limit]
    end = offset + len(shown)
    return {
        name: list(shown),
        "total": len(items),
        "left_out": len(items) - len(shown),
        "next_offset": end if shown and end < len(items) else None,
    }


def _object(value: Mapping[Any, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, one in list(value.items())[:MAX_ITEMS]:
        name = _text(str(name))
        if isinstance(one, Sequence) and not isinstance(one, str) and len(one) > MAX_ITEMS:
            told[name] = [plain(part) for part in one[:MAX_ITEMS]]
            told[f"{name}_left_out"] = len(one) - MAX_ITEMS
        else:
            told[name] = plain(one)
    if (more := len(value) - MAX_ITEMS) > 0:
        told["left_out"] = more
    return told


def _text(value: str) -> str:
    text = one_line(_KEY.sub("(key)", value))
    more = len(text) - MAX_TEXT
    return f"{text[:MAX_TEXT]} ... ({more} more characters)" if more > 0 else text
