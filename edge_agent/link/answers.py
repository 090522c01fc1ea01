"""What this robot takes of an HTTP answer: so many bytes, in so much time, as they were sent."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fleet_model.bundle import MAX_JSON_BYTES
from fleet_model.errors import ConnectionFailed

if TYPE_CHECKING:
    import httpx

SILENCE_S = 30.0  # a server that says nothing for so long is gone
PATIENCE_S, SLOWEST_BYTES_S = 60.0, 1000  # an answer that trickles in more slowly is given up


def blocks(response: "httpx.Response", size_bytes: int, who: str) -> Iterator[bytes]:
    """Yield the body as it is sent: nothing is unpacked, and its time is limited.

    Args:
        response: opened, not read.
        size_bytes: that are expected.
        who: answers, for words.

    Raises:
        ConnectionFailed: it comes too slowly.
    """
    end = time.monotonic() + patience_s(size_bytes)
    for block in response.iter_raw():
        yield block
        if time.monotonic() > end:
            raise ConnectionFailed(f"{who} answers too slowly")


def small(response: "httpx.Response", who: str, doubt: str = "") -> bytes:
    """Return the body of an answer that is a small file.

    Raises:
        ConnectionFailed: it is longer than any of ours, or too slow; `doubt` ends the words.
    """
    content = b""
    for block in blocks(response, MAX_JSON_BYTES, who):
        content += block
        if len(content) > MAX_JSON_BYTES:
            raise ConnectionFailed(f"{who} answers more than {MAX_JSON_BYTES} bytes{doubt}")
    return content


def patience_s(size_bytes: int) -> float:
    """Return in how much time so many bytes must come."""
    return PATIENCE_S + size_bytes / SLOWEST_BYTES_S
