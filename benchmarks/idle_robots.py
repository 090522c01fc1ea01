"""Many robots in one process, each as idle as an agent: a thread, a session, a look now and then.

They speak to a server as `edge-agent` does. Where the server holds requests, they are held; where
it does not, a robot looks for models and messages every two seconds, as an agent's default is, and
sends a heartbeat every twenty. At stock Flower they ask every three seconds, as a SuperNode. They
train nothing: an update is random numbers that no other robot and no other round sends.
"""

import argparse
import json
import threading
import time
from contextlib import suppress
from pathlib import Path

from flwr.app import Message

from benchmarks.lean_robots import update_of
from edge_agent.link.flower_connection import FleetConnection
from edge_agent.link.news import LOOK_S, News, WholeMessages
from edge_agent.link.server_link import HttpsStore
from edge_agent.robot.backoff import Backoff
from edge_agent.robot.server_settings import ServerLink
from fleet_model.errors import FleetError, UpdateError
from fleet_model.protocol.proof import read_key

POLL_S, BEAT_S = 2.0, 20.0  # of agents: poll.idle_s, HEARTBEAT_S
STOCK_POLL_S, STOCK_BEAT_S = 3.0, 30.0  # of SuperNodes


class Notes:
    """What happened when, one line of JSON each; from many threads."""

    def __init__(self, file: Path) -> None:
        self._stream, self._lock = file.open("a", buffering=1), threading.Lock()

    def write(self, **values: object) -> None:
        """Add a line with the time of this machine."""
        with self._lock:
            self._stream.write(json.dumps({"at": time.time(), **values}) + "\n")


class IdleRobot:
    """One robot, until its process ends."""

    def __init__(self, number: int, key: Path, options: argparse.Namespace, notes: Notes) -> None:
        private, ca = read_key(key), options.ca.read_bytes()
        self._number, self._notes, self._stock = number, notes, options.stock
        self._store = HttpsStore(ServerLink(address=options.address, key=key, ca=options.ca))
        self._news = News(self._store)
        whole = None if self._stock else WholeMessages(self._store)
        self._connection = FleetConnection(options.address, ca, private, whole)
        self._answered, self._online = 0, False
        self._broken = False  # the last call failed
        self._reply: Message | None = None  # that the server has not confirmed
        self._look_at = self._beat_s = 0.0
        self._backoff = Backoff()

    def run(self, begin_s: float) -> None:
        """Take part."""
        time.sleep(begin_s)
        while True:
            try:
                self._step()
                self._backoff.reset()
                self._rest()
            except FleetError as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                time.sleep(self._backoff.next_s())
                # Else a new session, as agents begin one. Stock Flower refuses it while the old one
                # lasts, and SuperNodes do not ask for it.
                self._online &= self._stock or self._reply is not None
                self._broken = True

    def _step(self) -> None:
        if self._reply is not None:
            self._deliver()
        if not self._online:
            if not self._stock:
                self._store.hello()
            self._connection.activate()
            self._online, self._broken, self._beat_s = True, False, time.monotonic()
            self._notes.write(robot=self._number, event="online")
        if not self._stock and (self._news.take() or time.monotonic() >= self._look_at):
            self._store.latest("stable")
            self._look_at = time.monotonic() + self._news.look_s(POLL_S)
        if self._stock or self._news.question or self._connection.is_receiving:
            self._answer_one()
        beat_s = STOCK_BEAT_S if self._stock else BEAT_S
        if time.monotonic() - self._beat_s > beat_s and not self._news.spares(self._beat_s):
            with suppress(FleetError):  # an agent sends them in a thread of their own
                self._connection.heartbeat()
                self._beat_s = time.monotonic()

    def _answer_one(self) -> None:
        message = self._connection.receive()
        if message is None:
            self._news.fetched()
            return
        self._notes.write(robot=self._number, event="asked")
        self._answered += 1
        update = update_of(self._number, self._answered, message.content)
        self._reply = Message(update, reply_to=message)
        self._deliver()

    def _deliver(self) -> None:
        """Send the reply; as agents do, once more after a failure, in the same session."""
        assert self._reply is not None
        if self._broken and not self._stock:
            self._connection.resume()
            self._broken = False
        try:
            self._connection.reply(self._reply, 0.0)
            self._notes.write(robot=self._number, event="replied")
        except UpdateError as error:  # nobody awaits it
            print(f"UpdateError: {error}", flush=True)
        self._reply = None

    def _rest(self) -> None:
        if self._news.holds:
            self._news.rest(str, LOOK_S, lambda: True)
        else:
            time.sleep(STOCK_POLL_S if self._stock else POLL_S)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--notes", type=Path, required=True, help="file of what happened when")
    parser.add_argument("--stock", action="store_true", help="the server is stock Flower's")
    parser.add_argument("--first", type=int, default=0, help="number of the first robot")
    parser.add_argument("--keys", type=Path, required=True, help="folder of private keys")
    parser.add_argument("--robots", type=int, required=True)
    parser.add_argument("--apart-s", type=float, required=True, help="between two robots' starts")
    options = parser.parse_args()
    notes = Notes(options.notes)
    threading.stack_size(256 << 10)
    for index in range(options.robots):
        number = options.first + index
        robot = IdleRobot(number, options.keys / f"r{number:04d}.key", options, notes)
        begin_s = options.apart_s * index
        threading.Thread(target=robot.run, args=(begin_s,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
