"""Robots that do as they are told, good and bad, over the real protocol: a process of its own.

    python scripted_robots.py ADDRESS CA NAME=KEY_FILE=BEHAVIOR ...

Honest updates, and sums where they are asked for, depend on the robot's name and the checkpoint's
version alone, so that two runs can be compared bit for bit. What robots are told goes to stdout, a
JSON object a line.

honest[:EXAMPLES]  slow:SECONDS       good updates, at once or later
held:FILE                             good updates, from when that file exists
towards:NUMBER                        half of the way from what it was sent to that number
nan  shape  missing  empty  stale     what no checkpoint can take
inflated  huge                        too many examples, a thousand times too long
twice                                 answers every question again, with something else
replay                                sends its first reply again before each new one
"""

import json
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
from flwr.app import Message

from edge_agent.link.flower_connection import FleetConnection
from fleet_model.errors import FleetError, UpdateError
from fleet_model.protocol.proof import read_key
from fleet_model.protocol.wire import RobotRequest, pack_update, unpack_request
from fleet_model.sums.class_sums import ClassSums, class_sums
from fleet_model.sums.packing import GROUP, pack_sums
from fleet_model.types import SUMS, Checkpoint, Update

PAUSE_S = 0.8
HEARTBEAT_S = 15.0


def honest_weights(name: str, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return what an honest robot of this name sends for a checkpoint."""
    draw = np.random.default_rng((zlib.crc32(name.encode()), checkpoint.version))
    return {
        tensor: draw.normal(0, 0.01, value.shape).astype(np.float32)
        for tensor, value in sorted(checkpoint.weights.items())
    }


def good_weights(name: str, behavior: str, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return what fits a checkpoint: half of the way to a number, or what an honest robot sends."""
    kind, _, argument = behavior.partition(":")
    if kind != "towards":
        return honest_weights(name, checkpoint)
    return {
        tensor: ((float(argument) - value) / 2).astype(np.float32)
        for tensor, value in checkpoint.weights.items()
    }


def honest_sums(name: str, checkpoint: Checkpoint, examples: int, directions: int) -> ClassSums:
    """Return the sums of features that an honest robot of this name has, for the head trained."""
    ((width, number),) = (w.shape for w in checkpoint.weights.values() if w.ndim == 2)
    draw = np.random.default_rng((zlib.crc32(name.encode()), checkpoint.version))
    classes = np.arange(examples) % number
    middles = np.random.default_rng(0).normal(1, 0.5, (number, width))
    features = middles[classes] + draw.normal(0, 1, (examples, width))
    return class_sums(features.astype(np.float32), classes, number, directions)


def wait_as_told(kind: str, argument: str) -> None:
    """Wait for seconds, or until a file exists."""
    if kind == "slow":
        time.sleep(float(argument))
    while kind == "held" and not Path(argument).exists():
        time.sleep(0.05)


def sums_of(name: str, behavior: str, request: RobotRequest) -> Update:
    """Return the sums that a behavior sends; what makes an update bad makes no bad sums."""
    kind, _, argument = behavior.partition(":")
    wait_as_told(kind, argument)
    examples = int(argument) if kind == "honest" and argument else 20
    sums = honest_sums(name, request.checkpoint, examples, request.config.sums_directions)
    return Update(
        kind=SUMS,
        robot="",
        base_version=request.checkpoint.version,
        weights={},
        groups={GROUP: pack_sums(sums)},
        num_examples=examples,
        num_steps=0,
        label_counts=tuple(int(count) for count in sums.counts),
    )


def update_of(name: str, behavior: str, request: RobotRequest) -> Update:
    """Return the update that a behavior sends."""
    kind, _, argument = behavior.partition(":")
    weights, version, examples = (
        good_weights(name, behavior, request.checkpoint),
        request.checkpoint.version,
        20,
    )
    first = next(iter(weights))
    if kind == "honest" and argument:
        examples = int(argument)
    elif kind == "nan":
        weights[first] = np.full_like(weights[first], np.nan)
    elif kind == "shape":
        weights[first] = np.zeros((*weights[first].shape, 2), np.float32)
    elif kind == "missing":
        del weights[first]
    elif kind == "empty":
        examples = 0
    elif kind == "stale":
        version -= 1
    elif kind == "inflated":
        examples = 10**9
    elif kind == "huge":
        weights = {tensor: value * np.float32(1000) for tensor, value in weights.items()}
    elif kind in ("held", "slow"):
        wait_as_told(kind, argument)
    return Update(
        robot="",
        base_version=version,
        weights=weights,
        num_examples=examples,
        num_steps=1,
        metrics={"loss_before": 1.0, "loss_after": 0.5, "held_out": 5.0},
    )


class ScriptedRobot:
    """One robot with one behavior."""

    def __init__(self, name: str, behavior: str, connection: FleetConnection) -> None:
        self.name, self.behavior, self.connection = name, behavior, connection
        self.first: Message | None = None
        self.online = False

    def run(self) -> None:
        """Serve for ever; failures are told and survived."""
        threading.Thread(target=self._beat, daemon=True).start()
        while True:
            try:
                self._step()
            except FleetError as error:
                self.tell("failed", f"{type(error).__name__}: {error}")
                self.online = False
                time.sleep(0.5)
            time.sleep(PAUSE_S)

    def _step(self) -> None:
        if not self.online:
            self.connection.resume()
            self.online = True
        message = self.connection.receive()
        if message is None:
            return
        request = unpack_request(message.content)
        self.tell("asked", f"round {request.round} version {request.checkpoint.version}")
        made = sums_of if request.kind == SUMS else update_of
        content = pack_update(made(self.name, self.behavior, request))
        if self.behavior == "replay" and self.first is not None:
            self._try("replayed", self.first)
        self._try("answered", reply := Message(content, reply_to=message))
        self.first = self.first or reply
        if self.behavior == "twice":
            other = pack_update(update_of(f"{self.name}-again", "honest", request))
            self._try("answered again", Message(other, reply_to=message))

    def _try(self, what: str, reply: Message) -> None:
        try:
            self.connection.reply(reply, 0.0)
        except UpdateError as error:
            self.tell(f"{what}: refused", str(error))
        else:
            self.tell(what, "")

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            try:
                if self.online:
                    self.connection.heartbeat()
            except FleetError:
                pass

    def tell(self, event: str, words: str) -> None:
        line = json.dumps({"robot": self.name, "event": event, "words": words})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def main() -> None:
    """Run every robot in a thread until the process is killed."""
    address, ca = sys.argv[1], Path(sys.argv[2]).read_bytes()
    for argument in sys.argv[3:]:
        name, key, behavior = argument.split("=")
        robot = ScriptedRobot(name, behavior, FleetConnection(address, ca, read_key(Path(key))))
        threading.Thread(target=robot.run, name=name, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
