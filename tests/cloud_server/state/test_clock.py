import ctypes

import pytest

from cloud_server.state import clock
from cloud_server.state.clock import STA_UNSYNC, STATUS_AT, TIME_ERROR, is_synchronized


class Kernel:
    """Answers adjtimex as a kernel in that state does."""

    def __init__(self, state, status):
        self._state, self._status = state, status

    def adjtimex(self, timex):
        assert timex.raw[:4] == b"\0\0\0\0"  # modes: nothing is set
        ctypes.memmove(ctypes.addressof(timex) + STATUS_AT, ctypes.byref(self._status), 4)
        return self._state


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [(0, 0x2001, True), (0, STA_UNSYNC, False), (TIME_ERROR, 0, False), (-1, 0, None)],
)
def test_the_kernels_word_is_understood(monkeypatch, state, status, expected):
    kernel = Kernel(state, ctypes.c_int(status))
    monkeypatch.setattr(clock.ctypes, "CDLL", lambda *_, **__: kernel)

    assert is_synchronized() is expected


def test_this_machines_kernel_is_asked_without_harm():
    assert is_synchronized() in (True, False, None)
