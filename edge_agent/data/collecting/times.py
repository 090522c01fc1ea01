"""A moment as platforms write it."""

from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

_TWITTER = "%a %b %d %H:%M:%S %z %Y"
_DAY = "%Y%m%d"
# Seconds since 1970 have up to 11 digits until the year 5138; more are of a smaller unit. Those of
# before 1973 are rather a year, or a day as 20240115.
_LEAST, _UNITS = 1e8, ((1e11, 1), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))


def moment_of(value: Any) -> str:
    """Return a moment as "2026-12-03T07:38:00Z", to the second; "" for what is none.

    Args:
        value: seconds, milliseconds, micro- or nanoseconds since 1970, also as text; ISO 8601
            (without a zone: UTC); a date of mails; or what Twitter writes.
    """
    text = str(value).strip()
    with suppress(ValueError, OverflowError, OSError):
        return _written(_of_number(float(text)))
    if text.endswith(("Z", "z")):  # Python 3.10 does not know it
        text = text[:-1] + "+00:00"
    for read in (
        datetime.fromisoformat,
        lambda one: datetime.strptime(one, _TWITTER),
        lambda one: datetime.strptime(one, _DAY),
        parsedate_to_datetime,
    ):
        with suppress(ValueError, TypeError, IndexError, OverflowError):
            return _written(read(text))
    return ""


def _of_number(number: float) -> datetime:
    for end, unit in _UNITS:
        if _LEAST <= number < end:
            return datetime.fromtimestamp(number / unit, timezone.utc)
    raise ValueError(number)


def _written(moment: datetime) -> str:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
