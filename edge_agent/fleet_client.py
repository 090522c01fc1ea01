"""The lean Flower participant: message -> local training -> reply. Executes nothing it receives."""

import logging
import re
import threading
import time
from collections.abc import Callable

from flwr.app import Error, Message

from edge_agent.settings import PollSettings
from fleet_model.errors import FleetError, FrameError, UpdateError
from fleet_model.flower_compat import FleetConnection
from fleet_model.types import Update
from fleet_model.wire import TrainRequest, pack_update, unpack_request

HEARTBEAT_S = 20.0  # the server takes a robot for gone 60 s after the last one
BUSY_FOR_S = 30.0  # after a message the next one is probably near
FAILED = 2  # Flower's code of an exception in a ClientApp
# From a root, ~ or drive: to the closing quote; without quotes to the last separator of the clause,
# since names may hold spaces, and the name after it. A clause ends where punctuation meets a space
# or the end. "head/kernel" is no path.
PATH = re.compile(
    r"""(?<=(['"])) (?:~\w*|[A-Za-z]:)?[/\\] [^\n]*? (?=\1(?!\w))
    | (?<![\w.]) (?:~\w*|[A-Za-z]:)?[/\\]
      (?: (?:(?![:;,.)'"]+(?:\s|$))[^\n])* [/\\] )?  (?:(?![:;,.)'"]+(?:\s|$))\S)*""",
    re.VERBOSE,
)
log = logging.getLogger(__name__)

Train = Callable[[TrainRequest], Update]


def answer(message: Message, train: Train) -> Message:
    """Return the reply to a train message; an error becomes its reason, without paths.

    So does a bug: the server must not wait for this robot, and the robot stays in the fleet.
    """
    try:
        if not message.metadata.message_type.startswith("train"):
            return Message(
                Error(FAILED, "this robot answers train messages only"), reply_to=message
            )
        return Message(pack_update(train(unpack_request(message.content))), reply_to=message)
    except FrameError as error:  # names files and folders, and a folder's name may be a label
        log.error("training: %s", error)
        reason = "its recordings cannot be read; details are in the robot's log"
        return Message(Error(FAILED, reason), reply_to=message)
    except FleetError as error:
        log.error("training: %s", error)
        return Message(Error(FAILED, without_paths(str(error))), reply_to=message)
    except Exception as error:
        log.exception("training")
        reason = f"training failed with {type(error).__name__}; details are in the robot's log"
        return Message(Error(FAILED, reason), reply_to=message)


def without_paths(text: str) -> str:
    """Replace file paths: what a robot's disk looks like is nobody's business."""
    return PATH.sub("<path>", text)


class FleetClient:
    """Poll for train messages and answer them; comes back by itself when the server was away."""

    def __init__(
        self, connect: Callable[[], FleetConnection], train: Train, poll: PollSettings
    ) -> None:
        self._connect = connect
        self._train = train
        self._poll = poll
        self._connection: FleetConnection | None = None
        self._beat_stop = threading.Event()
        self._busy_until = 0.0
        self.last_traffic = (0, 0)  # payload bytes (up, down) of the last message and its reply

    def step(self) -> bool:
        """Answer one message if there is one; return whether there was.

        Raises:
            ConnectionFailed, RefusedError: the session has ended, as with any other exception; the
                next step starts a new one.
        """
        try:
            link = self._connection or self._open()
            up, down = link.bytes_up, link.bytes_down
            message = link.receive()
            if message is None:
                return False
            begin = time.monotonic()
            reply = answer(message, self._train)
            link.reply(reply, time.monotonic() - begin)
            self.last_traffic = (link.bytes_up - up, link.bytes_down - down)
        except UpdateError as error:
            log.warning("%s", error)
            return False
        except Exception:
            self.close()
            raise
        self._busy_until = time.monotonic() + BUSY_FOR_S
        return True

    @property
    def pause_s(self) -> float:
        """How long to wait before the next step."""
        busy = time.monotonic() < self._busy_until
        return self._poll.busy_s if busy else self._poll.idle_s

    def close(self) -> None:
        """End the session."""
        self._beat_stop.set()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> FleetConnection:
        connection = self._connect()
        connection.activate()
        self._connection = connection
        self._beat_stop = threading.Event()
        threading.Thread(
            target=_beat, args=(connection, self._beat_stop), name="heartbeat", daemon=True
        ).start()
        return connection


def _beat(connection: FleetConnection, stop: threading.Event) -> None:
    """Keep the session alive while a long training runs."""
    while not stop.wait(HEARTBEAT_S):
        try:
            connection.heartbeat()
        except FleetError as error:
            log.warning("heartbeat: %s", error)
