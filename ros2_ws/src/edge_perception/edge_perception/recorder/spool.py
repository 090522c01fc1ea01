"""Fill the agent's spool with bags: short ones, so that a kill or a full disk costs little.

Every bag can be learned from by itself: where one follows the other in the middle of a stream, the
labels around the border are in both, and each frame is in one.
"""

import errno
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import NamedTuple

from edge_perception.recorder.bag import HIDDEN, BagFiles, BagWriter, TopicType
from edge_perception.recorder.message import Message
from edge_perception.recorder.recovery import recover_bags

from fleet_model.durable import make_directory
from fleet_model.types import NS_PER_S

GONE = ".gone"  # a hidden folder that is being removed
_LOOK_S = 10.0  # between two looks whether somebody has made room
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Where bags go, how long they get, how much of the disk they may take."""

    folder: Path  # the agent's examples.spool
    name: str  # of this recorder: its bags' names begin with it
    bag_s: float = 30.0  # a bag ends after so long
    bag_bytes: int = 64_000_000  # and with this size
    budget_bytes: int = 2_000_000_000  # of all bags of this name together
    remove_oldest: bool = False  # where the budget is used up; else nothing more is written
    label_ns: int = NS_PER_S // 2  # labels so close to a frame belong to it


class SpoolStatus(NamedTuple):
    """The bags of one recorder in numbers."""

    size_bytes: int  # of all of them
    bag: str  # the one that is written; "" if none is
    finished: int  # since the start
    removed: int  # for the budget
    recovered: Counter[str]  # bags, messages, lost bytes


class Spool:
    """The bags of one recorder. For one thread."""

    def __init__(
        self,
        settings: SpoolSettings,
        topics: Mapping[str, TopicType],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the folder; the first bag begins with the first message.

        Raises:
            OSError: it cannot be made, or this user may not write into it.
        """
        make_directory(settings.folder)
        if not os.access(settings.folder, os.W_OK | os.X_OK):  # else the first frame would say so
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(settings.folder))
        self._settings, self._topics, self._monotonic_s = settings, topics, monotonic_s
        self._bag: BagWriter | None = None
        self._ending: BagWriter | None = None  # the one before, which waits for its last labels
        self._begun_s = self._looked_s = 0.0
        self._last_frame_ns = 0  # of the bag that ends
        self._labels = deque[Message]()  # the last ones, for the next bag
        self._is_abandoned = False
        self._others_bytes = 0  # what the bags before these take
        self._finished = 0  # finished
        self._removed = 0  # bags, for the budget
        self._recovered = Counter[str]()  # bags, messages, lost bytes

    def add(self, message: Message) -> str:
        """Write a message; return "" or why it was refused.

        Raises:
            OSError: the disk fails. What is in the bags can be recovered; the next `add` begins
                another one.
        """
        try:
            if message.is_frame:
                self._turn_page(message)
            if not self._has_room(message):
                return "disk budget"
            if self._bag is None:
                self._begin(message)
            assert self._bag is not None
            self._bag.add(message)
            if message.is_frame:
                self._last_frame_ns = message.moment_ns
            else:
                self._remember(message)
                if self._ending:
                    self._ending.add(message)
        except OSError:
            self.abandon()
            raise
        return ""

    def tend(self, *, finish: bool) -> str:
        """Make bags whole: all of them, or those whose time is over although no frame comes.

        Raises:
            OSError: as `add`.
        """
        if self._is_abandoned:
            self.recover()
        if finish or self._is_due():
            try:
                self._end()
                self._ending, self._bag = self._bag, None
                self._end()
            except OSError:
                self.abandon()
                raise
        return ""

    def recover(self) -> str:
        """Make bags of what was left unfinished, count and log it; measure what is there.

        Raises:
            OSError: the disk is full or fails; what is left is done the next time.
        """
        folder = self._settings.folder
        remove_what_is_gone(folder)
        for name, messages, lost_bytes in recover_bags(folder):
            self._recovered["bags"] += 1
            self._recovered["messages"] += messages
            self._recovered["lost bytes"] += lost_bytes
            log.warning(
                "%s was not finished: %d messages recovered, %d bytes lost",
                *(name, messages, lost_bytes),
            )
        self._is_abandoned = False
        self._look()
        return ""

    def abandon(self) -> None:
        """Leave the bags that are being written to `recover_bags`."""
        for bag in filter(None, (self._ending, self._bag)):
            bag.abandon()
        self._ending = self._bag = None
        self._is_abandoned = True

    def status(self) -> SpoolStatus:
        """Return the numbers of now."""
        bag = self._bag.files.name if self._bag else ""
        recovered = self._recovered.copy()
        return SpoolStatus(self._size_bytes, bag, self._finished, self._removed, recovered)

    @property
    def _size_bytes(self) -> int:
        open_bags = filter(None, (self._ending, self._bag))
        return self._others_bytes + sum(bag.size_bytes for bag in open_bags)

    def _turn_page(self, frame: Message) -> None:
        """End bags before a frame, if it is time."""
        if frame.moment_ns - self._last_frame_ns > self._settings.label_ns:
            self._end()
        if self._is_due():
            self._end()
            self._ending, self._bag = self._bag, None

    def _is_due(self) -> bool:
        """Return whether the time of the bag is over, or it is large enough."""
        return self._bag is not None and (
            self._monotonic_s() - self._begun_s >= self._settings.bag_s
            or self._bag.size_bytes >= self._settings.bag_bytes
        )

    def _end(self) -> None:
        if self._ending:
            self._ending.close()
            self._ending, self._finished = None, self._finished + 1

    def _begin(self, message: Message) -> None:
        at = datetime.fromtimestamp(message.arrived_ns / NS_PER_S, timezone.utc)
        name = f"{self._settings.name}-{at:%Y%m%dT%H%M%S-%f}"
        names = (f"{name}-{number}" if number else name for number in count())
        files = (BagFiles(self._settings.folder, name) for name in names)
        free = next(f for f in files if not (f.folder.exists() or (f.spool / f.name).exists()))
        self._bag, self._begun_s = BagWriter(free, self._topics), self._monotonic_s()
        self._look()
        for label in self._labels:
            if abs(message.moment_ns - label.moment_ns) <= self._settings.label_ns:
                self._bag.add(label)

    def _remember(self, label: Message) -> None:
        self._labels.append(label)
        while label.arrived_ns - self._labels[0].arrived_ns > 2 * self._settings.label_ns:
            self._labels.popleft()

    def _has_room(self, message: Message) -> bool:
        budget = self._settings.budget_bytes
        if self._size_bytes + message.size_bytes <= budget:
            return True
        if self._settings.remove_oldest:
            for folder in list(self._own()):
                remove_bag(folder)
                self._removed += 1
                self._look()
                if self._size_bytes + message.size_bytes <= budget:
                    return True
        elif self._monotonic_s() - self._looked_s >= _LOOK_S:
            self._look()
        return self._size_bytes + message.size_bytes <= budget

    def _look(self) -> None:
        """Measure what the finished bags take; others may have removed some."""
        self._looked_s, total = self._monotonic_s(), 0
        for folder in self._own():
            for file in folder.iterdir():
                with suppress(FileNotFoundError):
                    total += file.stat().st_size
        self._others_bytes = total

    def _own(self) -> Iterator[Path]:
        """Yield the finished bags of this recorder, the oldest first."""
        beginning = f"{self._settings.name}-"
        folders = self._settings.folder.glob(f"{beginning}[0-9]*T[0-9]*-[0-9]*")
        yield from sorted(folder for folder in folders if folder.is_dir())


def remove_bag(folder: Path) -> None:
    """Remove a bag such that nobody finds a half of it."""
    gone = folder.with_name(f"{HIDDEN}{folder.name}{GONE}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def remove_what_is_gone(spool: Path) -> None:
    """Remove what a kill has left of bags that were being removed."""
    for folder in spool.glob(f"{HIDDEN}*{GONE}"):
        shutil.rmtree(folder, ignore_errors=True)
