"""Many robots in one process, to measure servers: they speak the fleet API and train nothing.

The same robots serve our server and stock Flower's: the reply holds the records that both read.
A few workers take turns over all robots, so that however many robots there are, at most `workers`
transfer a model at a time: this process's memory and the machine's two cores are not the measure.
"""

import argparse
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from edge_agent.link.flower_connection import FleetConnection
from fleet_model.errors import FleetError
from fleet_model.protocol.proof import read_key
from fleet_model.protocol.wire import ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, NUM_STEPS, VERSION

PAUSE_S = 0.5  # between two looks of one robot, as a busy agent's
HEARTBEAT_S = 20.0


class LeanRobot:
    """One robot: a session and the number that makes its updates its own."""

    def __init__(self, number: int, connection: FleetConnection) -> None:
        self._number = number
        self._connection = connection
        self._answered = 0
        self.online = False

    def step(self) -> None:
        """Come online, or look for a message and answer it."""
        if not self.online:
            self._connection.activate()
            self.online = True
        message = self._connection.receive()
        if message is not None:
            self._answered += 1
            update = update_of(self._number, self._answered, message.content)
            self._connection.reply(Message(update, reply_to=message), 0.0)

    def heartbeat(self) -> None:
        """Stay online."""
        if self.online:
            self._connection.heartbeat()


def update_of(number: int, answered: int, request: RecordDict) -> RecordDict:
    """Return an update that no other robot and no other round has sent.

    Equal objects would be stored once, and equal chunks within one update as well.
    """
    generator = np.random.default_rng((number, answered))
    arrays = {
        name: Array(generator.random(array.shape, np.float32))
        for name, array in request.array_records[ARRAYS].items()
    }
    counts: dict[str, int | float] = {NUM_EXAMPLES: 1}
    if VERSION in (config := request.config_records[CONFIG]):  # our server asks
        counts |= {NUM_STEPS: 1, VERSION: int(str(config[VERSION]))}
    return RecordDict({ARRAYS: ArrayRecord(arrays), METRICS: MetricRecord(counts)})


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("keys", type=Path, nargs="+", help="one private key a robot")
    options = parser.parse_args()
    ca = options.ca.read_bytes()
    robots = [
        LeanRobot(number, FleetConnection(options.address, ca, read_key(key)))
        for number, key in enumerate(options.keys)
    ]
    turns: queue.PriorityQueue[tuple[float, int]] = queue.PriorityQueue()  # (due, robot)
    for number in range(len(robots)):
        turns.put((0.0, number))
    for _ in range(options.workers):
        threading.Thread(target=_work, args=(robots, turns), daemon=True).start()
    while True:
        time.sleep(HEARTBEAT_S)
        for robot in robots:
            _patiently(robot.heartbeat)


def _work(robots: list[LeanRobot], turns: "queue.PriorityQueue[tuple[float, int]]") -> None:
    while True:
        due, number = turns.get()
        time.sleep(max(0.0, due - time.monotonic()))
        _patiently(robots[number].step)
        turns.put((time.monotonic() + PAUSE_S, number))


def _patiently(call: Callable[[], None]) -> None:
    """Call; what fails is tried again at the robot's next turn."""
    try:
        call()
    except FleetError as error:
        print(f"{type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
