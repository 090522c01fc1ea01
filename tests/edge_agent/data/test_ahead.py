import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.ahead import map_ahead

pytestmark = pytest.mark.base


def threads_ahead():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(1, 9))
def test_it_is_map_whatever_threads_and_window(items, threads, window):
    assert list(map_ahead(lambda x: x * 2, items, threads, window)) == [x * 2 for x in items]


def test_results_keep_their_order_when_later_items_are_quicker():
    def slow_first(item):
        time.sleep(0.05 if item == 0 else 0)
        return item

    assert list(map_ahead(slow_first, range(6), 3, 4)) == list(range(6))


def test_never_more_items_are_taken_than_the_window_holds():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = map_ahead(lambda x: x, endless(), 2, 5)
    for expected in range(20):
        assert next(results) == expected
        assert len(taken) <= expected + 5
    results.close()


def test_items_are_iterated_in_the_callers_thread_and_worked_on_in_others():
    iterated = []

    def items():
        for item in range(3):
            iterated.append(threading.current_thread())
            yield item

    worked = list(map_ahead(lambda _: threading.current_thread(), items(), 2, 2))
    assert set(iterated) == {threading.current_thread()}
    assert threading.current_thread() not in worked


def test_work_goes_on_while_the_caller_is_busy():
    both = threading.Barrier(2, timeout=240)
    # Passes only if two calls run at the same time.
    assert sorted(map_ahead(lambda _: both.wait(), range(2), 2, 2)) == [0, 1]


@pytest.mark.parametrize("where", ["function", "items"])
def test_what_is_raised_arrives_in_its_turn_and_ends_it(where):
    def items():
        yield from range(3)
        if where == "items":
            raise ValueError("at 3")
        yield from range(3, 9)

    def work(item):
        if item == 3:
            raise ValueError("at 3")
        return item

    results = map_ahead(work, items(), 2, 8)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="at 3"):
        next(results)
    assert next(results, "ended") == "ended"
    assert threads_ahead() == []


def test_closing_it_ends_the_threads_and_starts_nothing_more():
    started = []

    def work(item):
        started.append(item)
        time.sleep(
            0.5 if item else 0
        )  # much longer than closing takes: 25 such would be waited for
        return item

    results = map_ahead(work, range(1000), 2, 50)
    assert next(results) == 0
    assert threads_ahead()
    results.close()
    assert threads_ahead() == []
    assert len(started) < 50
