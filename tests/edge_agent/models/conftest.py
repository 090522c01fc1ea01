"""What the tests of models that a robot installs share."""

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_watch_goes_on() -> Iterator[None]:
    """End the watch of each probation with its test: it would try the models of deleted folders."""
    yield
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()
