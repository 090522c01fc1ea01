"""The lean Flower participant: message -> local training -> reply. Executes nothing it receives."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import Error, Message, RecordDict

from edge_agent.link.flower_connection import FleetConnection
from edge_agent.robot.reasons import outcome_of
from edge_agent.robot.settings import PollSettings
from fleet_model.errors import ConnectionFailed, FleetError, RefusedError, UpdateError
from fleet_model.protocol.outcome import Outcome, pack_failure
from fleet_model.protocol.wire import RobotRequest, pack_update, unpack_request
from fleet_model.types import Update

HEARTBEAT_S = 20.0  # the server takes a robot for gone 60 s after the last one
SLOWER = 1.25  # each look that finds nothing: twenty robots that waited for a slow one at ten looks
# a second each would keep the server from the slow one's reply: each goes through all of Flower
LATE = "this work is abandoned: the server waits for it no longer"
log = logging.getLogger(__name__)

Work = Callable[[RobotRequest], Update]


def answer(message: Message, work: Work, left_s: float = float("inf")) -> Message:
    """Return the reply to a message of any kind; an error becomes its reason, without paths.

    So does a bug: the server must not wait for this robot, and the robot stays in the fleet.

    Args:
        message: as received.
        work: does what the request asks for; may take what it calls `deadline_s`.
        left_s: how long the server still waits.

    Raises:
        UpdateError: the time is over, and the server takes no reply.
        ConnectionFailed: what the work needs cannot be fetched now; try the message again.
    """
    content: RecordDict | Error
    begin = time.monotonic()
    try:
        request = unpack_request(message.content)
        request = replace(request, deadline_s=min(request.deadline_s, left_s))
        content = pack_update(work(request))
    except ConnectionFailed:
        raise
    except Exception as error:  # noqa: BLE001  (logged by outcome_of)
        content = _failure(outcome_of(error))
    if time.monotonic() - begin >= left_s:
        raise UpdateError(LATE)
    return Message(content, reply_to=message)


def _failure(outcome: Outcome) -> Error:
    code, reason = pack_failure(outcome)
    return Error(code, reason)


@dataclass(slots=True)
class _Work:
    """One message on its way through this robot; it outlives connections."""

    asked: str  # id of the message as received
    message: Message  # as received, then the reply in its place: models are large
    until: float  # monotonic: the server waits no longer
    traffic: tuple[int, int]  # of the session when it began
    answered: bool = False
    seconds: float = 0.0


class FleetClient:
    """Poll for messages and answer them.

    Neither the network nor a restart of the server costs work: after a failure, `step` continues
    with the same session, and sends again what did not arrive, while the server waits for it.
    """

    def __init__(
        self,
        connect: Callable[[], FleetConnection],
        work: Work,
        poll: PollSettings,
        server_now: Callable[[], float] = time.time,
        spares: Callable[[float], bool] = lambda _: False,
    ) -> None:
        """Open nothing yet.

        Args:
            connect: makes a connection; called again only after `close`.
            work: does what a request asks for.
            poll: how often to look.
            server_now: the server's clock, in seconds since 1970, as well as it is known here.
            spares: whether the server needs no heartbeat now, given when the last one was.
        """
        self._connect = connect
        self._do = work
        self._poll = poll
        self._server_now, self._spares = server_now, spares
        self._connection: FleetConnection | None = None
        self._broken = False  # the last call failed
        self._work: _Work | None = None
        self._answered = ""  # the last message
        self._beat_stop = threading.Event()
        self._beat: threading.Thread | None = None
        self._pause_s = poll.idle_s
        self.last_failure = ""  # why the last message was answered by an error; "" if it was not
        self.last_traffic = (0, 0)  # payload bytes (up, down) of the last message and its reply

    def step(self) -> bool:
        """Answer one message if there is one; return whether there was.

        Raises:
            ConnectionFailed, RefusedError: call again later; what is at work is kept. After a
                refusal begin a new session first: it ends the one that the server still holds.
                After a lost connection only when nothing is at work: a message may have been lost
                with the answer that held it, and is handed out again.
        """
        try:
            link = self._live()
            self._work = self._work or self._receive(link)
            if self._work is None:
                self._pause_s = min(self._pause_s * SLOWER, self._poll.idle_s)
                return False
            self._finish(link, self._work)
        except UpdateError as error:
            log.warning("%s", error)
            self._work = None
            return False
        except (ConnectionFailed, RefusedError):
            self._broken = True
            raise
        except Exception:
            if self._work is not None:  # else it would be trained and fail again each time
                self._answered, self._work = self._work.asked, None
            self._broken = True
            raise
        self._work = None
        self._pause_s = min(self._poll.busy_s, self._poll.idle_s)  # the next one is probably near
        return True

    def session_ended(self) -> None:
        """Come online again with the next step: the server has ended the session at a `hello`."""
        self._broken = self._connection is not None

    @property
    def at_work(self) -> bool:
        """Whether there is a message that is not answered."""
        receiving = self._connection is not None and self._connection.is_receiving
        return receiving or self._work is not None

    @property
    def goes_on(self) -> bool:
        """Whether `step` has something to do even if no message waits."""
        return self._connection is None or self._broken or self.at_work

    @property
    def objects(self) -> int:
        """How many parts of messages this connection has moved."""
        return 0 if self._connection is None else self._connection.objects

    @property
    def pause_s(self) -> float:
        """How long to wait before the next step."""
        return self._pause_s

    def close(self) -> None:
        """End the session, and drop what is at work."""
        self._beat_stop.set()
        if self._beat is not None:  # one that is under way would bring the robot online again
            self._beat.join(1.0)
            self._beat = None
        if self._work is not None:
            log.warning("the session ends: the work that the server waits for is dropped")
            self._work = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _live(self) -> FleetConnection:
        """Return a connection whose session continues, or begins."""
        if self._connection is None:
            self._connection = self._begin()
        elif self._broken:
            self._connection.resume()
        self._broken = False
        return self._connection

    def _begin(self) -> FleetConnection:
        connection = self._connect()
        try:
            connection.activate()
        except FleetError:
            connection.close()
            raise
        self._beat_stop = threading.Event()
        self._beat = threading.Thread(
            target=_beat,
            args=(connection, self._beat_stop, self._spares),
            name="heartbeat",
            daemon=True,
        )
        self._beat.start()
        return connection

    def _receive(self, link: FleetConnection) -> _Work | None:
        traffic = link.bytes_up, link.bytes_down
        message = link.receive()
        if message is None:
            return None
        asked = message.metadata
        if asked.message_id == self._answered:  # a new session may bring it once more
            return None
        left_s = asked.created_at + asked.ttl - self._server_now()
        if left_s <= 0:
            raise UpdateError(LATE)
        # From here on by a clock that nobody sets.
        return _Work(asked.message_id, message, until=time.monotonic() + left_s, traffic=traffic)

    def _finish(self, link: FleetConnection, work: _Work) -> None:
        """Train unless that is done, and deliver the reply."""
        begin = time.monotonic()
        if not work.answered:
            work.message = answer(work.message, self._do, work.until - begin)
            work.answered, work.seconds = True, time.monotonic() - begin
        if time.monotonic() >= work.until:
            raise UpdateError(LATE)
        self.last_failure = str(work.message.error.reason) if work.message.has_error() else ""
        link.reply(work.message, work.seconds)
        self._answered = work.asked
        up, down = work.traffic
        self.last_traffic = (link.bytes_up - up, link.bytes_down - down)


def _beat(
    connection: FleetConnection, stop: threading.Event, spares: Callable[[float], bool]
) -> None:
    """Keep the session alive while a long training runs."""
    failed, last_s = False, time.monotonic()
    while not stop.wait(HEARTBEAT_S):
        if spares(last_s):
            continue
        try:
            connection.heartbeat()
            failed, last_s = False, time.monotonic()
        except FleetError as error:
            if not failed:  # logged once; the main loop says more
                log.warning("heartbeat: %s", error)
            failed = True
