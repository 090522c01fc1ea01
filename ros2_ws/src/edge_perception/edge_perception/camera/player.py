"""Play a source in a thread of its own: make a picture ready, wait until it is due, send it."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edge_perception.camera.source import CameraSource
from edge_perception.pacing import Pacer, RateLimit

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame

Ready = TypeVar("Ready")
UNTIMED_HZ = 10.0  # of pictures in a folder, which do not say when they were taken
_JOIN_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a source is played."""

    speed: float = 1.0  # of a recording; 2: twice as fast
    rate_hz: float = 0.0  # of a recording: exactly; of a camera: at most; 0: as they come
    loop: bool = False  # a recording begins again at its end
    retry_s: float = 5.0  # until a camera that cannot be had is asked again: it may be plugged in


class Player(Generic[Ready]):
    """Sends the pictures of one source from `start` until its end or `stop`."""

    def __init__(
        self,
        source: CameraSource,
        pace: Pace,
        make: Callable[[Frame], Ready],
        send: Callable[[Ready, Frame], None],
    ) -> None:
        """Keep what to do; all calls come from the player's thread.

        Args:
            source: what is played.
            pace: how.
            make: does what takes time, before the picture is due; raises FrameError if the picture
                cannot be read, which is counted.
            send: publishes what `make` returned.
        """
        self._source, self._pace = source, pace
        self._make, self._send = make, send
        rate_hz = pace.rate_hz or (0.0 if source.has_times else UNTIMED_HZ)
        self.pacer = Pacer(pace.speed, rate_hz)
        self._limit = RateLimit(pace.rate_hz)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera player", daemon=True)
        self.damage = DamageLog()  # what of the source cannot be read
        self.sent = 0  # pictures
        self.passes = 0  # times that a recording was played to its end
        self.problem = ""  # why there are no pictures now, or why it ended too early
        self.ended = False  # a recording: after its last picture, or an error

    @property
    def name(self) -> str:
        """Return the source's name, without a password."""
        return self._source.name

    @property
    def outage(self) -> str:
        """Return why a camera is not connected now, "" of one that is; it is asked again."""
        return self._source.outage

    def counts(self) -> dict[str, object]:
        """Return by name what was sent and, where there is any, what is not as recorded."""
        found = {"sent": self.sent}
        extra = {
            "not read": self.damage.sentence(),
            "gaps shortened": self.pacer.shortened,
            "times late": self.pacer.slipped,
        }
        return found | {name: value for name, value in extra.items() if value}

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until the last picture is sent. From any thread but the player's."""
        self._stopped.set()
        self._source.stop()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._stopped.is_set():
            sent = self.sent
            try:
                self._play()
            except FrameError as error:
                self.problem = str(error)
            except Exception as error:  # noqa: BLE001  (else the pictures would end without a word)
                self.problem = f"{self._source.name}: {type(error).__name__} while it was played"
            else:
                self.passes += 1
                if self.sent == sent:
                    self.problem = f"{self._source.name}: no picture of it can be read"
            if self._source.is_live:
                self._stopped.wait(self._pace.retry_s)
            elif self.problem or not self._pace.loop:
                break
            self.pacer.rewind()
        self.ended = not self._stopped.is_set()

    def _play(self) -> None:
        for picture in self._source.pictures(self.damage):
            now_s = time.monotonic()
            if self._source.is_live and not self._limit.takes(now_s):
                continue
            try:
                frame = picture.load()
                ready = self._make(frame)
            except FrameError as error:
                self.damage.add(error.reason, str(error))
                continue
            if not self._source.is_live:
                wait_s = self.pacer.wait_s(picture.time_ns, time.monotonic())
                self._stopped.wait(wait_s)
            if self._stopped.is_set():
                return
            self._send(ready, frame)
            self.sent += 1
            self.problem = ""
