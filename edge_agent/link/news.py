"""Hear of news from a server that holds a request until there is some; small messages in one call.

A server that does not hold requests says so in its standing: then the agent looks every few
seconds, and messages come as Flower moves them.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fleet_model.bundle import MAX_JSON_BYTES
from fleet_model.errors import ConnectionFailed, FleetError
from fleet_model.protocol.routes import MESSAGE, NEWS, REPLY, ROBOT
from fleet_model.protocol.whole import (
    MAX_WHOLE_REPLY_BYTES,
    MOST_PARAMETER,
    MOST_WHOLE_BYTES,
    join,
    split,
)

if TYPE_CHECKING:
    from fleet_model.protocol.report import Standing

LOOK_S = 120.0  # between looks at models though there are no news of them
BEAT_S = 20.0  # between two signs of life, as of a heartbeat
SPARED_S = 10.0  # the server says at most so late that it has spared a heartbeat
SOON_S = 1.0
LATE_S = 15.0  # an answer that comes so much later than the server holds a request is lost


class Server(Protocol):
    """What is asked here; see server_link.py."""

    standing: "Standing"
    address: str

    @property
    def models_from(self) -> str:
        """Return where models come from: its address, or another place."""

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        wait_s: float = 0.0,
        most_bytes: int = MAX_JSON_BYTES,
    ) -> bytes | None:
        """Return the answer, None for 404."""

    def look_query(self, report: str) -> str:
        """Return what the server is told with every look."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the server has said last."""

    message: bool = True  # a question may wait
    tag: str = ""  # of what is published


class News:
    """Asks in a thread of its own; the rest is for the agent's thread."""

    def __init__(self, server: Server, *, asks_here: bool = True) -> None:
        """Ask nothing yet.

        Args:
            server: has the models.
            asks_here: it also asks for rounds. False where a SuperLink apart does, of whose
                questions the server knows nothing.
        """
        self._server, self._asks_here = server, asks_here
        self._woken = threading.Event()
        self._last = Heard()
        self._asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answer: Heard | FleetError | None = None
        self._thread: threading.Thread | None = None
        self._asking = False
        # The last answer came at once and told nothing, as where another agent with this key ends
        # the requests of this one: then it asks no faster than it would look.
        self._in_vain = False
        self._alive_s = float("-inf")  # monotonic: the server has spared a heartbeat after it

    @property
    def holds(self) -> bool:
        """Whether the server holds requests, and tells of all that there is to do."""
        return self._asks_here and self._server.standing.hold_s > 0

    def look_s(self, poll_s: float) -> float:
        """Return how often to look at models; `poll_s` where no news tell of them."""
        here = self._server.models_from == self._server.address
        return LOOK_S if self.holds and here else poll_s

    @property
    def question(self) -> bool:
        """Whether a question may wait at the server."""
        return self._last.message or not self.holds

    def rest(self, report: Callable[[], str], step_s: float, enough: Callable[[], bool]) -> None:
        """Wait until there is an answer to `take`, until `wake`, or `enough()`, which is cheap.

        Args:
            report: is called where a request begins: one that is held already told an older one.
            step_s: between two calls of `enough`.
            enough: whether there is other work.
        """
        self._woken.clear()
        if self._answer is not None:
            return
        if self._in_vain and (self._woken.wait(step_s) or enough()):
            return
        self._in_vain = False
        self._ask(report)
        while not self._woken.wait(step_s) and not enough():
            pass

    def wake(self) -> None:
        """End a `rest`; from any thread."""
        self._woken.set()

    def take(self) -> bool:
        """Take the answer, if there is one; return whether what is published may have changed.

        Raises:
            FleetError: of the request.
        """
        answer, self._answer = self._answer, None
        if isinstance(answer, FleetError):
            self._last = Heard()
            raise answer
        if answer is None:
            return False
        changed = answer.tag != self._last.tag
        self._last = answer
        return changed

    def fetched(self) -> None:
        """Say that no question waits but one of which a later answer tells."""
        self._last = Heard(message=False, tag=self._last.tag)

    def spares(self, beat_s: float) -> bool:
        """Whether the server needs no heartbeat now.

        Args:
            beat_s: when the last one was, of the monotonic clock.
        """
        age_s = time.monotonic() - max(beat_s, self._alive_s)
        return age_s < BEAT_S or (self._asking and age_s < 2 * BEAT_S)

    def close(self) -> None:
        """Ask no more; a request that is held ends with the process, or in its time."""
        self._asked.put(None)

    def _ask(self, report: Callable[[], str]) -> None:
        """Ask, unless that is under way."""
        if self._asking:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="news", daemon=True)
            self._thread.start()
        self._asking = True
        self._asked.put(f"tag={self._last.tag}&{self._server.look_query(report())}")

    def _work(self) -> None:
        while (query := self._asked.get()) is not None:
            begin, known = time.monotonic(), self._last
            try:
                answer: Heard | FleetError = self._heard(query)
                nothing = answer == Heard(message=False, tag=known.tag)
                self._in_vain = nothing and time.monotonic() - begin < SOON_S
            except FleetError as error:
                answer = error
            except Exception as error:  # noqa: BLE001  (such as of a client that was closed)
                answer = ConnectionFailed(f"no news ({type(error).__name__})")
            self._answer, self._asking = answer, False
            self._woken.set()

    def _heard(self, query: str) -> Heard:
        wait_s = self._server.standing.hold_s + LATE_S
        content = self._server.ask("GET", f"{ROBOT}{NEWS}?{query}", wait_s=wait_s)
        try:
            said = json.loads(content or b"{}")
            heard = Heard(message=bool(said["message"]), tag=str(said["tag"])[:32])
            if said["alive"]:
                self._alive_s = time.monotonic() - SPARED_S
        except (ValueError, TypeError, LookupError, RecursionError):
            raise ConnectionFailed("the server's news are none; is it of this version?") from None
        return heard


class WholeMessages:
    """Questions and replies whole, where the server moves them so."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def receive(self) -> Sequence[bytes] | None:
        """Return a question, None if none can be had whole; raises what the server's link does."""
        if not self._server.standing.hold_s:
            return None
        path = f"{ROBOT}{MESSAGE}?{MOST_PARAMETER}={MOST_WHOLE_BYTES}"
        content = self._server.ask("POST", path, most_bytes=2 * MOST_WHOLE_BYTES)
        try:
            return None if content is None else split(content)
        except ValueError:
            raise ConnectionFailed("the server's message is not whole") from None

    def reply(self, parts: Sequence[bytes]) -> int:
        """Send a reply; return its bytes, 0 if it is to go another way.

        Raises:
            UpdateError: nobody awaits it.
        """
        body = join(parts)
        standing = self._server.standing
        most = max(MAX_WHOLE_REPLY_BYTES, min(standing.whole_reply_bytes, MOST_WHOLE_BYTES))
        if not standing.hold_s or len(body) > most:
            return 0
        return len(body) if self._server.ask("POST", ROBOT + REPLY, body) is not None else 0
