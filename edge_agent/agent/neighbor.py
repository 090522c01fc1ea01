"""Stop a training while other work needs the robot, go on later, and give up in time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fleet_model.errors import BusyError, TrainingError

if TYPE_CHECKING:
    from edge_agent.training.training_process import TrainingProcess

LOOK_S = 0.4  # a training stops within a second of its reason
PATIENCE_S = 60.0  # of the other robots of a round, that wait for this one
log = logging.getLogger(__name__)


@contextmanager
def yielding(
    closed: Callable[[], str],
    process: "TrainingProcess",
    now_s: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Watch over a training in `process`: it stands still while `closed` has a reason.

    Raises:
        BusyError: it stood still for PATIENCE_S, or was not allowed to begin; the reason.
    """
    if reason := closed():
        raise BusyError(reason)
    end, given_up = threading.Event(), list[str]()
    watch = threading.Thread(
        target=_watch, args=(closed, process, end, given_up, now_s), name="gate", daemon=True
    )
    watch.start()
    try:
        yield
    except TrainingError:
        if given_up:
            raise BusyError(given_up[0]) from None
        raise
    finally:
        end.set()
        watch.join()
        process.go_on()


def _watch(
    closed: Callable[[], str],
    process: "TrainingProcess",
    end: threading.Event,
    given_up: list[str],
    now_s: Callable[[], float],
) -> None:
    since_s: float | None = None  # it stands still
    while not end.wait(LOOK_S):
        reason = closed()
        if not reason:
            if since_s is not None:
                log.info("training goes on")
                process.go_on()
            since_s = None
            continue
        if since_s is None:
            log.info("training stands still: %s", reason)
            since_s = now_s()
        process.stand_still()  # each time: a child may have been started meanwhile
        if now_s() - since_s >= PATIENCE_S:
            given_up.append(reason)
            process.cancel()
            return
