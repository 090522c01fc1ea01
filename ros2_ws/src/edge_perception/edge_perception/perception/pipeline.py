"""From a serialized camera message to what the model finds in it: the newest image first."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from edge_perception.pacing import RateLimit

from edge_agent.data.frames.cdr import parse_header
from edge_agent.data.frames.message import frame_of
from edge_agent.data.storage import Topic
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame, Prediction
from fleet_model.workload import sure

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """What one model says of one image."""

    engine: TFLiteEngine
    stamp_ns: int  # of the image's header, also where it is zero
    frame_id: str
    frame: Frame
    found: Sequence[Prediction]  # those above the threshold, best first


class Pipeline:
    """Answers one message at a time."""

    def __init__(
        self,
        topic: str,
        engine: Callable[[], TFLiteEngine | None],
        send: Callable[[Result], None],
        threshold: Callable[[], float],
        max_rate_hz: Callable[[], float],
    ) -> None:
        """Keep how.

        Args:
            topic: where the images come from, for errors.
            engine: returns the model of now; None: there is none yet.
            send: gets every result.
            threshold: results with a lower score are left out; 0: those that the workload is not
                sure of. Asked for every image.
            max_rate_hz: images answered a second at most, 0 for all; asked for every image.
        """
        self._topic, self._engine, self._send, self._threshold = topic, engine, send, threshold
        self._max_rate_hz = max_rate_hz
        self._limit, self._limit_hz = RateLimit(0.0), 0.0
        self._damage = DamageLog()
        self._times_ms: list[float] = []  # since `counts` was last asked
        self.answered = 0
        self._limited = self._without_model = 0

    def take(self, type_: str, message: bytes) -> None:
        """Answer a camera message, unless that is too soon after the last one."""
        rate_hz = self._max_rate_hz()
        if rate_hz != self._limit_hz:
            self._limit, self._limit_hz = RateLimit(rate_hz), rate_hz
        if self._limit.takes(time.monotonic()):
            self._answer(type_, message)
        else:
            self._limited += 1

    def counts(self) -> Mapping[str, object]:
        """Return what became of the images until now, and the times since this was last asked."""
        times, self._times_ms = self._times_ms, []
        return {
            "images answered": self.answered,
            "images above the rate limit": self._limited,
            "images without a model": self._without_model,
            "images that cannot be read": self._damage.sentence() or "0",
            "answers since last time": len(times),
            "ms per image, median": f"{median(times):.1f}" if times else "",
            "ms per image, longest": f"{max(times):.1f}" if times else "",
        }

    def _answer(self, type_: str, message: bytes) -> None:
        engine = self._engine()
        if engine is None:
            self._without_model += 1
            return
        begun = time.perf_counter()
        topic = Topic(self._topic, type_, "cdr", "", 0)
        try:
            stamp_ns, frame_id = parse_header(message)
            frame = frame_of(message, topic, "ros", time.time_ns())
            answer = engine.answer(frame)
        except FrameError as error:
            self._leave_out(error)
            return
        least = self._threshold()
        above = [one for one in answer.predictions if one.score >= least]
        found = above if least else sure(engine.workload, above)
        self._send(Result(engine, stamp_ns, frame_id, frame, found))
        self.answered += 1
        self._times_ms.append((time.perf_counter() - begun) * 1e3)

    def _leave_out(self, error: FrameError) -> None:
        if error.reason not in {damage.kind for damage in self._damage.all()}:
            log.warning("images cannot be read (%s), the first: %s", error.reason, error)
        self._damage.add(error.reason, str(error))
