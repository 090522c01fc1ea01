"""Look at the frames in the background: list them, ask the models, keep the queue in order."""

import logging
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edge_agent.labeling.advice import Advice, Advised
from edge_agent.labeling.answer import Answer, FrameName
from edge_agent.labeling.frames import MOST, Candidate, KeptFrames, spread_order, thinned
from edge_agent.labeling.queue import Queue
from edge_agent.labeling.views import thumbprint
from fleet_model.errors import FleetError, FrameError

LOOK_S = 2.0  # between two looks for another model
_PATIENCE_S = 10.0  # with a frame that is being looked at
_SMALL = 64  # pixels a side, of a picture that becomes a thumbprint
_MOST_ANSWERED = 500  # frames of earlier answers that others are compared with
_FIRST = 16  # frames that models see before those of earlier answers: a person waits
log = logging.getLogger(__name__)


class Ranked(NamedTuple):
    """How far the ranking has come."""

    listed: bool
    frames: int  # without a label, in all
    chosen: int  # of these are looked at
    looked_at: int
    waiting: int  # for a person
    unreadable: int


class Ranking:
    """A thread from `start` to `close`; the other methods are for any thread."""

    def __init__(
        self, frames: KeptFrames, advice: Advice, known: Mapping[FrameName, Answer]
    ) -> None:
        """Start nothing yet.

        Args:
            frames: that may be asked about.
            advice: what the models say.
            known: frames that were answered before.
        """
        self._frames, self._advice, self._known = frames, advice, dict(known)
        self._queue, self._changing = Queue(MOST + _MOST_ANSWERED), threading.Lock()
        self._candidates: dict[FrameName, Candidate] = {}
        self._advised: dict[FrameName, Advised] = {}  # of frames that wait, or did here
        self._asked: dict[FrameName, tuple[int, ...]] = {}  # versions that saw a frame last
        self._tells_features = False  # the model that was asked last
        self._listed, self._count, self._chosen, self._unreadable = False, 0, 0, 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure = ""  # why it has ended by itself

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="ranking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, after the frame that is being looked at."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    @property
    def now(self) -> Ranked:
        """How far it has come."""
        with self._changing:
            looked_at = len(self._advised)
            return Ranked(
                self._listed, self._count, self._chosen, looked_at, len(self._queue),
                self._unreadable,
            )  # fmt: skip

    @property
    def problems(self) -> list[str]:
        """What a person should know of recordings that cannot be read, and of the models."""
        found = (self.failure, self._advice.problem, *self._frames.problems)
        return [text for text in found if text]

    def take(self) -> Candidate | None:
        """Return the frame to ask about next; None while none is known."""
        with self._changing:
            name = self._queue.take()
            return None if name is None else self._candidates[name]

    def advised(self, name: FrameName) -> Advised:
        """Return what the models say of a frame that was taken."""
        with self._changing:
            return self._advised.get(name, Advised())

    def _run(self) -> None:
        try:
            self._advice.look()
            order = self._list()
            while not self._ended.is_set():
                if self._look_at(order):
                    self._wait_for_models()
        except (FleetError, OSError) as error:
            self.failure = str(error)
        except Exception as error:
            self.failure = f"looking at frames has failed: {type(error).__name__}: {error}"
            log.exception("looking at frames has failed")

    def _list(self) -> list[Candidate]:
        """List what is there; return the frames in the order in which they are looked at."""
        open_ones = (c for c in self._frames.listed() if self._may_ask(c))
        found, count = thinned(self._counted(open_ones))
        ordered = sorted(found, key=lambda candidate: candidate.name.stamp_ns)
        with self._changing:
            self._listed, self._count, self._chosen = True, count, len(found)
            answered = [c for name, c in self._candidates.items() if name in self._known]
        waiting = [ordered[place] for place in spread_order(len(ordered))]
        return [*waiting[:_FIRST], *answered, *waiting[_FIRST:]]

    def _may_ask(self, candidate: Candidate) -> bool:
        answer = self._known.get(candidate.name)
        if answer is not None and len(self._candidates) < _MOST_ANSWERED:
            self._add(candidate, ask=False)
        return answer is None

    def _counted(self, candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        for number, candidate in enumerate(candidates, 1):
            if self._ended.is_set():
                return
            with self._changing:
                self._count = number
            yield candidate

    def _look_at(self, order: list[Candidate]) -> bool:
        """Return whether that came to its end; else there are other models, or it is over."""
        for candidate in order:
            if self._ended.is_set() or self._advice.look():
                return False
            if self._is_new(candidate):
                self._add(candidate)
        for candidate in order:  # with all that is known by now of those that were taken
            with self._changing:
                self._queue.compare(candidate.name)
        return True

    def _is_new(self, candidate: Candidate) -> bool:
        """Return whether the models of now have something to say of a frame.

        Of one that waits no longer they say only what is near it, if that.
        """
        versions, name = self._versions, candidate.name
        with self._changing:
            if self._asked.get(name) == versions:
                return False
            waits = name not in self._candidates or self._queue.waits(name)
        return waits or self._tells_features

    @property
    def _versions(self) -> tuple[int, ...]:
        """The active version and, on trial, the next: what they differ in counts as well."""
        return tuple(self._advice.versions)

    def _add(self, candidate: Candidate, *, ask: bool = True) -> None:
        """Keep what a frame is like: in colors, and to the models if they are asked."""
        name, versions = candidate.name, self._versions
        try:
            view = thumbprint(candidate.frame.reduced(_SMALL))
            advised = self._advice.of(candidate.frame) if ask else Advised()
        except FrameError as error:
            log.info("%s", error)
            with self._changing:
                self._unreadable += name not in self._advised
                self._advised.setdefault(name, Advised(value=0.0))
                self._asked[name] = versions
            return
        with self._changing:
            waits = name not in self._known
            # What a person was shown of a frame stays what it was.
            if waits and (name not in self._candidates or self._queue.waits(name)):
                self._advised[name] = advised._replace(sight=None)  # the queue has it
            if ask:
                self._asked[name], self._tells_features = versions, advised.sight is not None
            self._candidates[name] = candidate
            self._queue.add(name, advised.value, view, advised.sight, waits=waits)

    def _wait_for_models(self) -> None:
        while not self._ended.wait(LOOK_S):
            if self._advice.look():
                return
