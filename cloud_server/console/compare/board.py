"""The running sums of all that was asked: how fast, how often of one mind, how often right."""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

MOST_TIMES = 1000  # the latest ones: the median of these is told


class Standing(NamedTuple):
    """One model on the board."""

    milliseconds: float | None  # median of an answer; None: nothing was asked
    speed_up: float | None  # over the first model; above 1 it is faster
    agreement: float | None  # with the first model, 0..1
    accuracy: float | None  # None: no input had a label


class Told(NamedTuple):
    """The board at one moment."""

    requests: int
    labelled: int  # requests whose true class was given
    of_one_mind: float | None  # mean over requests of the least agreement with the first model
    standings: Sequence[Standing]


@dataclass(eq=False)
class _Sums:
    times: deque[float]
    agreed: float = 0.0
    right: int = 0


class Board:
    """Thread-safe."""

    def __init__(self, models: int) -> None:
        """Begin with nothing."""
        self._lock, self._models = threading.Lock(), models
        self.clear()

    def clear(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._requests = self._labelled = 0
            self._least = 0.0
            self._sums = [_Sums(deque(maxlen=MOST_TIMES)) for _ in range(self._models)]

    def add(self, told: Mapping[str, Any], truth: str = "") -> None:
        """Count one answer, see Answering.answer; `truth` is its class, "" where nobody knows."""
        with self._lock:
            self._requests += 1
            self._labelled += bool(truth)
            self._least += min(told["agree"])
            for sums, answer, agree in zip(self._sums, told["answers"], told["agree"], strict=True):
                sums.times.append(answer["ms"])
                sums.agreed += agree
                best = answer["found"][0]["label"] if answer["found"] else ""
                sums.right += bool(truth) and best == truth

    def told(self) -> Told:
        """Return what there is to see."""
        with self._lock:
            asked, known = self._requests, self._labelled
            times = [median(sums.times) if sums.times else None for sums in self._sums]
            standings = [
                Standing(
                    milliseconds=ms,
                    speed_up=times[0] / ms if times[0] is not None and ms else None,
                    agreement=sums.agreed / asked if asked else None,
                    accuracy=sums.right / known if known else None,
                )
                for sums, ms in zip(self._sums, times, strict=True)
            ]
            return Told(asked, known, self._least / asked if asked else None, standings)
