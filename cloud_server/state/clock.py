"""Whether this machine's clock follows a time server, as the kernel tells it; ages in words."""

import ctypes

TIME_ERROR, STA_UNSYNC = 5, 0x0040  # adjtimex(2)
TIMEX_BYTES, STATUS_AT = 256, 40  # struct timex is 208 bytes on 64-bit Linux; `status` is an int


def is_synchronized() -> bool | None:
    """Return None where the kernel does not say, e.g. in some containers."""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)  # modes = 0: only read
    adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if adjtimex is None or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    state = int(adjtimex(timex))
    if state < 0:
        return None
    status = int.from_bytes(timex.raw[STATUS_AT : STATUS_AT + 4], "little")
    return state != TIME_ERROR and not status & STA_UNSYNC


def age(seconds: float) -> str:
    """Return a time span as people say it, in the largest unit of which there are two or more."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
