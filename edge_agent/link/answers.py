"""What this robot takes of an HTTP answer: so many bytes, in so much time, as they were sent."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fleet_model.bundle import MAX_JSON_BYTES
from fleet_model.errors import ConnectionFailed, FleetError, RefusedError, UpdateError

if TYPE_CHECKING:
    import httpx

RUN_ENDED = "the run has ended on the server; this work is abandoned"
NEXT = "install the same minor version of flwr on both sides"
MAX_DETAIL = 1000  # characters of the server's own words; a refusal with the key is about 450
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


def small(
    response: "httpx.Response", who: str, doubt: str = "", most_bytes: int = MAX_JSON_BYTES
) -> bytes:
    """Return the body of an answer that is a small file.

    Raises:
        ConnectionFailed: it is longer than any of ours, or too slow; `doubt` ends the words.
    """
    content = bytearray()
    for block in blocks(response, most_bytes, who):
        content += block
        if len(content) > most_bytes:
            raise ConnectionFailed(f"{who} answers more than {most_bytes} bytes{doubt}")
    return bytes(content)


def patience_s(size_bytes: int) -> float:
    """Return in how much time so many bytes must come."""
    return PATIENCE_S + size_bytes / SLOWEST_BYTES_S


def unreachable(error: Exception, address: str, now: datetime) -> ConnectionFailed:
    """Return why there is no answer, and what to do where that can be told."""
    text = str(error) or type(error).__name__
    if "mismatch" in text or "not valid for" in text:  # of its name; the authority is right
        host = address.rpartition(":")[0]
        return ConnectionFailed(
            f"{address}: the server's certificate does not name {host}; on the server add "
            "it to network.names, run `cloud-server renew-certificate DIR` and restart, or use "
            "a name that it has"
        )
    if "not yet valid" in text or "has expired" in text:
        return ConnectionFailed(
            f"the certificate of {address} is not valid at the time of this robot's "
            f"clock, {now:%Y-%m-%d %H:%M} UTC; set the clock, or if it is right, renew "
            "the certificate on the server: cloud-server renew-certificate DIR"
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ConnectionFailed(
            f"{address} is not the server of this robot's kit ({text}); copy the kit "
            "again if the server was set up again"
        )
    return ConnectionFailed(f"no answer from {address} ({text})")


def detail(status: int, content: bytes) -> str:
    """Return the server's own words."""
    try:
        return str(json.loads(content)["detail"])[:MAX_DETAIL]
    except (ValueError, TypeError, LookupError, RecursionError):
        return f"status {status}"


def meaning(method: str, response: Any) -> FleetError:
    """Translate Flower's error codes (flwr/supercore/error/base.py) into ours."""
    from flwr.supercore.error import ApiErrorCode, FlowerError

    error = FlowerError.from_json(response.text)
    if error is not None and error.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
        return UpdateError(f"{method}: {RUN_ENDED}")
    if response.status_code == 429:
        return ConnectionFailed(f"{method}: the server has too much to do (429)")
    text = f"the fleet API answers {response.status_code} to {method}: {response.text[:300]}"
    if error is not None and error.code == ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE:
        return RefusedError(f"{method}: the server runs another flwr and refuses this one; {NEXT}")
    refused = error is not None and error.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED
    if refused or response.status_code in (401, 403):
        return RefusedError(text)
    return ConnectionFailed(text)
