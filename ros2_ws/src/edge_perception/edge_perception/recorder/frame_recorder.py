"""Decide for every message whether it is kept: the recorder without ROS.

topics --offer--> pre-event buffer --rate, trigger, model--> queue --a thread--> bags in the spool
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from edge_perception.recorder.limits import LimitedCount, Limits, at_rate
from edge_perception.recorder.message import LATE_NS, Message
from edge_perception.recorder.pre_event_buffer import PreEventBuffer, Windows
from edge_perception.recorder.spool import Spool, SpoolStatus

from fleet_model.types import NS_PER_S

_TICK_S = 0.5
_RETRY_S = 10.0  # after an error of the disk
_DISK = "disk fails"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderSettings:
    """What is kept."""

    before_ns: int = 10 * NS_PER_S  # of a trigger
    after_ns: int = 10 * NS_PER_S
    label_ns: int = NS_PER_S // 2  # labels so close to a kept frame are kept
    rate_hz: float = 0.0  # of frames that are kept whatever happens; 0 is none
    max_bytes: int = 256_000_000  # of the buffer and of what waits for the disk
    frame_limits: Limits = field(default_factory=Limits)  # by rate and by the model
    trigger_limits: Limits = field(default_factory=Limits)


class Triggered(NamedTuple):
    """What a trigger has brought."""

    refusal: str = ""  # the limit that stands against it
    frames: int = 0  # of before the trigger that are kept now
    missing_ns: int = 0  # of the time before it that is not in the buffer any more, or not yet


class Status(NamedTuple):
    """The recorder in numbers since its start."""

    counts: Counter[str]  # frames and labels seen and written, triggers, frames by each reason
    left_out: Counter[str]  # frames, labels and triggers by why they are not in a bag
    recording: bool  # a trigger keeps frames now
    buffered_frames: int
    memory_bytes: int  # never above RecorderSettings.max_bytes
    held_ns: int  # the age of the oldest message in the buffer
    disk: SpoolStatus  # as the writing thread has seen it last
    error: str  # of the disk, now; "" if all is well


class FrameRecorder:
    """Takes messages from one thread, is triggered from any, writes in one of its own."""

    def __init__(self, settings: RecorderSettings, spool: Spool) -> None:
        """Begin; call `close`."""
        self._settings, self._spool = settings, spool
        self._buffer = PreEventBuffer(max(settings.before_ns, settings.label_ns) + LATE_NS)
        self._frame_windows, self._label_windows = Windows(), Windows()
        self._chooses = at_rate(settings.rate_hz)
        self._frames = LimitedCount(settings.frame_limits)
        self._triggers = LimitedCount(settings.trigger_limits)
        self._queue = deque[Message]()
        self._queue_bytes = 0  # with the one that is being written
        self._counts, self._left_out = Counter[str](), Counter[str]()
        self._now_ns = self._first_frame_ns = 0
        self._event = False  # one goes on; or it is over, and its bag is to be made whole
        self._disk, self._error = spool.status(), ""
        self._changed = threading.Condition()
        self._closing = False
        self._not_before_s = 0.0
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def offer(self, message: Message) -> None:
        """Look at a message as it arrives; messages of a topic in their order."""
        with self._changed:
            self._now_ns = message.arrived_ns
            self._counts["frames seen" if message.is_frame else "labels seen"] += 1
            if not self._make_room(message):
                return
            windows = self._frame_windows if message.is_frame else self._label_windows
            windows.forget_before(message.arrived_ns - LATE_NS)
            if message.is_frame and not self._first_frame_ns:
                self._first_frame_ns = message.moment_ns
            by_rate = message.is_frame and self._chooses(message.moment_ns)
            if windows.cover(message.moment_ns):
                self._keep(message, "by trigger" if message.is_frame else "labels")
            elif not (by_rate and self._keep_if_allowed(message, "by rate")):
                self._buffer.add(message)

    def trigger(
        self, at_ns: int, before_ns: int, after_ns: int, note: Message | None = None
    ) -> Triggered:
        """Keep the frames and labels around a moment.

        Args:
            at_ns: the moment, by the clock of Message.moment_ns.
            before_ns: how long before; at most RecorderSettings.before_ns is there.
            after_ns: how long after.
            note: a message that says why, for the bag.
        """
        with self._changed:
            if refusal := self._triggers.refusal(self._now_ns):
                self._left_out[f"event limit {refusal}"] += 1
                return Triggered(refusal)
            self._triggers.add(self._now_ns)
            self._counts["events"] += 1
            window = Windows()
            window.add(at_ns - before_ns, at_ns + after_ns)
            self._frame_windows.add(at_ns - before_ns, at_ns + after_ns)
            self._event = True
            if note:
                self._keep(note, "notes")
            frames = self._buffer.take(window, frames=True)
            label_ns = self._settings.label_ns
            self._label_windows.add(at_ns - before_ns - label_ns, at_ns + after_ns + label_ns)
            labels = self._buffer.take(self._label_windows, frames=False)
            for message in sorted((*frames, *labels), key=lambda m: m.arrived_ns):
                self._keep(message, "by trigger" if message.is_frame else "labels")
            begins_ns = max(self._first_frame_ns or at_ns, self._buffer.let_go_ns)
            return Triggered("", len(frames), max(begins_ns - (at_ns - before_ns), 0))

    def keep(self, message: Message, reason: str) -> None:
        """Keep a frame that was offered before, unless a limit stands against it."""
        with self._changed:
            if not message.kept and self._keep_if_allowed(message, reason):
                self._buffer.remove(message)

    def rest(self) -> None:
        """Forget what is buffered, end all events, make the bags whole. Messages may follow."""
        with self._changed:
            while self._buffer.remove_oldest():
                pass
            self._frame_windows, self._label_windows = Windows(), Windows()
            self._event = True
            self._changed.notify()

    def status(self) -> Status:
        """Return the numbers of now."""
        with self._changed:
            oldest = self._buffer.oldest()
            return Status(
                self._counts.copy(),
                self._left_out.copy(),
                bool(self._frame_windows),
                self._buffer.frames,
                self._buffer.size_bytes + self._queue_bytes,
                self._now_ns - oldest.arrived_ns if oldest else 0,
                self._disk,
                self._error,
            )

    def close(self) -> None:
        """Write what is kept, and make the last bag whole."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _keep_if_allowed(self, frame: Message, reason: str) -> bool:
        if refusal := self._frames.refusal(frame.arrived_ns):
            self._left_out[f"frame limit {refusal}"] += 1
            return False
        self._frames.add(frame.arrived_ns)
        self._keep(frame, reason)
        label_ns = self._settings.label_ns
        self._label_windows.add(frame.moment_ns - label_ns, frame.moment_ns + label_ns)
        for label in self._buffer.take(self._label_windows, frames=False):
            self._keep(label, "labels")
        return True

    def _keep(self, message: Message, reason: str) -> None:
        message.kept = True
        self._counts[f"kept {reason}"] += 1
        self._queue.append(message)
        self._queue_bytes += message.size_bytes
        self._changed.notify()

    def _make_room(self, message: Message) -> bool:
        """Let go of the oldest messages, so that there is room for this one; count them."""
        room = self._settings.max_bytes - message.size_bytes
        self._buffer.expire(message.arrived_ns)
        while self._buffer.size_bytes + self._queue_bytes > room:
            oldest = self._buffer.remove_oldest()
            if oldest is None:
                self._left_out["disk too slow"] += 1
                return False
            self._left_out["memory bound"] += 1
        return True

    def _write(self) -> None:
        """Write what is kept, until `close`. The writing thread."""
        self._try(self._spool.recover)
        while True:
            with self._changed:
                if not (self._queue or self._closing):
                    self._changed.wait(_TICK_S)
                message = self._queue.popleft() if self._queue else None
                closing = self._closing
                over = closing or (self._event and not self._frame_windows)
                if message is None and over:
                    self._event = False
            if message:
                self._write_one(message)
            else:
                self._try(partial(self._spool.tend, finish=over))
                if closing:
                    return

    def _write_one(self, message: Message) -> None:
        refusal = self._try(partial(self._spool.add, message))
        with self._changed:
            self._queue_bytes -= message.size_bytes
            if refusal:
                self._left_out[refusal] += 1
            else:
                self._counts["frames written" if message.is_frame else "labels written"] += 1

    def _try(self, step: Callable[[], str]) -> str:
        """Do a step on the disk; return why something was refused. After an error wait a while."""
        if time.monotonic() < self._not_before_s:
            return _DISK
        error, refusal = "", _DISK
        try:
            refusal = step()
        except OSError as failure:
            error = f"{failure.strerror or failure}"
            self._not_before_s = time.monotonic() + _RETRY_S
        with self._changed:
            if error != self._error:
                log.error("the spool: %s", error) if error else log.info("the spool is well again")
            self._disk, self._error = self._spool.status(), error
        return refusal
