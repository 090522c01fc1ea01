"""Ask about a whole data set, in a thread of its own; a page looks at it meanwhile."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cloud_server.console.compare.board import Board
from cloud_server.console.compare.contenders import PICTURE
from cloud_server.console.compare.data_sets import DataSet, Input
from cloud_server.console.compare.process import Process
from cloud_server.console.compare.uploads import require_picture
from fleet_model.confusion.counts import Confusion, count_confusion
from fleet_model.errors import BusyError, FleetError, FrameError

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
MOST_REFUSED = 20  # of what cannot be read, so many are named
_AGAIN_S = 0.05  # a person's own question comes first
NOTHING = "(nothing)"  # what a model has answered that has found nothing
log = logging.getLogger(__name__)


class Said(NamedTuple):
    """What a model says of one input, in short."""

    label: str  # the best class; of boxes, how many
    score: float  # of the best one; 0 of nothing


class Row(NamedTuple):
    """One input that was asked about."""

    number: int  # in the data set
    said: Sequence[Said]  # of each model
    agree: float  # the least agreement with the first model


class Batch:
    """Begins at once; thread-safe."""

    def __init__(self, process: Process, data: DataSet, *, takes: str, has_classes: bool) -> None:
        """Begin to ask.

        Args:
            process: that computes.
            data: what is asked about.
            takes: PICTURE or TEXT.
            has_classes: whether answers are classes, else boxes.
        """
        self.data, self.board = data, Board(len(process.contenders))
        self.rows: list[Row] = []
        self.refused: list[tuple[str, str]] = []  # name and why, the first ones
        self.refusals = 0
        self.state, self.why = RUNNING, ""
        self._process, self._takes, self._has_classes = process, takes, has_classes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compare-batch", daemon=True)
        self._thread.start()

    @property
    def done(self) -> int:
        """Return how many inputs were asked about, or refused."""
        return len(self.rows) + self.refusals

    def stop(self) -> None:
        """Ask about no further one; wait for the last answer."""
        self._stop.set()
        self._thread.join()

    def differing(self, most: int) -> list[Row]:
        """Return inputs that models differ about: the surest first, of boxes the least alike."""
        differ = [row for row in self.rows if row.agree < 1]
        if self._has_classes:
            return sorted(differ, key=lambda row: -sum(one.score for one in row.said))[:most]
        return sorted(differ, key=lambda row: row.agree)[:most]

    def confusions(self, classes: Sequence[str]) -> list[Confusion]:
        """Return truth against answer of each model, over the inputs whose class is known."""
        if not self._has_classes:
            return []
        rows = [(self.data.inputs[row.number].truth, row.said) for row in list(self.rows)]
        return [
            _counted([(truth, said[n].label) for truth, said in rows if truth], classes)
            for n in range(len(self._process.contenders))
        ]

    def answers_beside(self, classes: Sequence[str]) -> list[Confusion]:
        """Return the first model's answers against those of each other one."""
        if not self._has_classes:
            return []
        rows = list(self.rows)
        return [
            _counted([(row.said[0].label, row.said[n].label) for row in rows], classes)
            for n in range(1, len(self._process.contenders))
        ]

    def _run(self) -> None:
        try:
            for number, one in enumerate(self.data.inputs):
                if self._stop.is_set():
                    self.state = STOPPED
                    return
                self._ask(number, one)
            self.state = FINISHED
        except FleetError as error:
            self.state, self.why = FAILED, str(error)
        except Exception:
            log.exception("a batch has failed")
            self.state, self.why = FAILED, "something has failed; the server's log says what"

    def _ask(self, number: int, one: Input) -> None:
        try:
            content = one.read()
            if self._takes == PICTURE:
                require_picture(content)
            told = self._answer(content)
        except FrameError as error:
            self.refusals += 1
            if len(self.refused) < MOST_REFUSED:
                self.refused.append((one.name, str(error)))
            return
        self.board.add(told, one.truth if self._has_classes else "")
        said = [_said(answer, has_classes=self._has_classes) for answer in told["answers"]]
        self.rows.append(Row(number, said, min(told["agree"])))

    def _answer(self, content: bytes) -> Mapping[str, Any]:
        while True:
            try:
                return self._process.answer(content, repeats=1)
            except BusyError:
                time.sleep(_AGAIN_S)


def _said(answer: Mapping[str, Any], *, has_classes: bool) -> Said:
    found = answer["found"]
    score = found[0]["score"] if found else 0.0
    if has_classes:
        return Said(found[0]["label"] if found else NOTHING, score)
    return Said(f"{len(found)} {'box' if len(found) == 1 else 'boxes'}", score)


def _counted(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> Confusion:
    """Count; a class that only one of the models knows comes last."""
    others = _others(pairs, classes)
    return count_confusion(pairs, [*classes, *others])


def _others(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> Iterator[str]:
    known = set(classes)
    for label in sorted({label for pair in pairs for label in pair}):
        if label not in known:
            yield label
