import ctypes

import pytest

from cloud_server.state import clock
from cloud_server.state.clock import STA_UNSYNC, STATUS_AT, TIME_ERROR, age, is_synchronized


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


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (1992, "33 min"), (7199, "119 min"),
        (7200, "2 h"), (172_799, "47 h"), (172_800, "2 days"), (86_400 * 400, "400 days"),
    ],
)  # fmt: skip
def test_an_age_is_told_in_the_largest_unit_of_which_there_are_two(seconds, words):
    assert age(seconds) == words
