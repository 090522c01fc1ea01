"""A worker with a queue of one."""

import threading

import pytest
from edge_perception.queue_of_one import QueueOfOne


def test_while_it_is_busy_the_newest_item_takes_the_place_of_one_that_waits():
    done, begun, go = [], threading.Event(), threading.Event()

    def work(item):
        begun.set()
        assert go.wait(240)
        done.append(item)

    worker = QueueOfOne(work, "tested")
    worker.put(1)
    assert begun.wait(240)
    for item in (2, 3, 4):
        worker.put(item)
    go.set()
    worker.close()
    assert done == [1, 4]
    assert worker.dropped == 2


def test_one_failure_ends_nothing_and_is_logged_once(caplog):
    done, worked = [], threading.Semaphore(0)

    def work(item):
        try:
            done.append(1 / item)
        finally:
            worked.release()

    worker = QueueOfOne(work, "tested")
    for item in (0, 0, 2):
        worker.put(item)
        assert worked.acquire(timeout=240)
    worker.close()
    assert (done, worker.failed) == ([0.5], 2)
    assert [record.message for record in caplog.records] == ["an image could not be worked on"]


@pytest.mark.parametrize("items", [[], [1]])
def test_closing_works_on_what_was_handed_over(items):
    done = []
    worker = QueueOfOne(done.append, "tested")
    for item in items:
        worker.put(item)
    worker.close()
    assert done == items
