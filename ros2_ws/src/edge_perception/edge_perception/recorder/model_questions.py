"""Ask the running model, and maybe the next one, which frames they are unsure of.

A thread of its own does it, so that no frame waits for a model. While it thinks, the newest frame
waits; the others are passed over, which is counted.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_perception.queue_of_one import QueueOfOne
from edge_perception.recorder.limits import at_rate
from edge_perception.recorder.message import Message
from edge_perception.recorder.uncertainty import disagree, entropy, margin

from fleet_model.errors import FleetError, FrameError, SettingsError
from fleet_model.following import FollowingEngine
from fleet_model.types import Frame, Prediction

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Which frames of a model are wanted; at least one of the three is asked for."""

    current: Path  # the link to the running model: state/models/current
    next: Path | None = None  # a bundle or a link to one: frames where it names another class
    margin_below: float = 0.0  # 0..1: frames where the best class leads by less; 0 asks not
    entropy_above: float = 1.0  # 0..1: frames with more entropy; 1 asks not
    rate_hz: float = 1.0  # frames that are looked at; the model takes its time of the processor
    precision: str = "fp32"  # or "int8"

    @property
    def any(self) -> bool:
        """Whether there is something to ask."""
        return self.next is not None or self.margin_below > 0 or self.entropy_above < 1


class ModelQuestions:
    """Answers through `keep(message, reason)`, from its own thread; see `Questions`."""

    def __init__(
        self,
        questions: Questions,
        frame_of: Callable[[Message], Frame],
        keep: Callable[[Message, str], None],
    ) -> None:
        """Begin; call `close`.

        Args:
            questions: what to ask.
            frame_of: parses a message; raises FrameError if it is damaged.
            keep: is told the message that is wanted and why, as "by margin".
        """
        self._questions, self._frame_of, self._keep = questions, frame_of, keep
        self._chooses = at_rate(questions.rate_hz)
        self._engines: tuple[FollowingEngine, ...] = ()
        self._counts = Counter[str]()
        self.error = ""  # why nothing can be asked; "" if all is well
        self._worker = QueueOfOne(self._ask, "model-questions")

    @property
    def counts(self) -> Counter[str]:
        """Frames that were asked about, and why others were not."""
        of_worker = {"passed over": self._worker.dropped, "failed": self._worker.failed}
        return self._counts.copy() + Counter(of_worker)

    def offer(self, message: Message) -> None:
        """Let the model look at this frame, if it is its turn. Never waits."""
        if self._chooses(message.moment_ns):
            self._worker.put(message)

    def close(self) -> None:
        """End the thread."""
        self._worker.close()
        for engine in self._engines:
            engine.close()

    def _load(self) -> None:
        error, engines = "", list[FollowingEngine]()
        try:
            for path in filter(None, (self._questions.current, self._questions.next)):
                engines.append(FollowingEngine(path, self._questions.precision))
                _require_classes(engines[-1])
            self._engines = tuple(engines)
        except (FleetError, OSError) as failure:
            error = str(failure)
            for engine in engines:
                engine.close()
        if error and error != self.error:
            log.warning("frames cannot be chosen by the model: %s", error)
        self.error = error

    def _ask(self, message: Message) -> None:
        if not self._engines:
            self._load()
        if not self._engines:
            self._counts["without a model"] += 1
            return
        try:
            frame = self._frame_of(message)
            answers = [engine.answer(frame).predictions for engine in self._engines]
        except FrameError as error:
            self._counts[f"unreadable: {error.reason}"] += 1
            return
        self._counts["asked"] += 1
        for reason in self._reasons(answers)[:1]:
            self._keep(message, reason)

    def _reasons(self, answers: Sequence[Sequence[Prediction]]) -> list[str]:
        asked, ours = self._questions, answers[0]
        found = {
            "by disagreement": len(answers) > 1 and disagree(ours, answers[1]),
            "by margin": margin(ours) < asked.margin_below,
            "by entropy": asked.entropy_above < 1 and entropy(ours) > asked.entropy_above,
        }
        return [reason for reason, wanted in found.items() if wanted]


def _require_classes(engine: FollowingEngine) -> None:
    if (answer := engine.workload.task.answer) != "class":
        raise SettingsError(
            f"the model answers {answer}, and only models that answer a class can be asked how "
            "unsure they are; choose frames by rate or by trigger"
        )
