"""Do slow work on the next items while the caller is busy with this one."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, window: int
) -> Generator[Result, None, None]:
    """Yield function(item) of every item, in their order, computed up to `window` items ahead.

    Only `function` runs in threads: `items` is iterated in the caller's, so it may read files.
    What either raises arrives where its result would have, and ends the iteration. The threads have
    ended when the generator has, also by `close()`; calls that already run are waited for.

    Args:
        function: what to do; worth a thread from about 0.2 ms (handing over costs 0.03 ms), and
            only if it leaves the interpreter lock, as OpenCV and NumPy do.
        items: may be endless.
        threads: at least 1.
        window: at least 1; items and results held at the same time.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        pending = deque[Future[Result]]()
        for item in _until_raised(items, pending):
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _until_raised(
    items: Iterable[Item], pending: "deque[Future[Result]]"
) -> Generator[Item, None, None]:
    """Yield the items; where iterating raises, queue that as the last result."""
    try:
        yield from items
    except Exception as error:  # noqa: BLE001  (raised again by its turn's result())
        failed: Future[Result] = Future()
        failed.set_exception(error)
        pending.append(failed)
