"""Updates as they travel: through the agent's residual file, the message, the server's decoder."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from edge_agent.training.residual import Residual
from fleet_model.compression.codec import Codec
from fleet_model.compression.coding import decoded
from fleet_model.types import Checkpoint, TrainConfig, Update, Weights

if TYPE_CHECKING:
    from flwr.app import RecordDict

    from fleet_model.protocol.wire import RobotRequest

ROUNDS = 5
METRICS = (  # of an ordinary reply
    "train_loss", "held_out", "unreadable", "encode_s", "train_s", "loss_before", "loss_after",
    "accuracy_before", "accuracy_after", "labels",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of one robot in one round."""

    up: int
    down: int

    @property
    def both(self) -> int:
        """Return the bytes of both directions."""
        return self.up + self.down


def learn(
    codec: Codec, robots: int, first: Checkpoint, fit: Callable[[int, Checkpoint], Update]
) -> Weights:
    """Return what a fleet has learned after the rounds, every update coded and read again."""
    *_, last = rounds(codec, robots, first, fit, ROUNDS)
    return last.weights


def rounds(
    codec: Codec,
    robots: int,
    first: Checkpoint,
    fit: Callable[[int, Checkpoint], Update],
    count: int,
) -> Iterator[Checkpoint]:
    """Yield what a fleet has learned after each of `count` rounds, as `learn` does."""
    checkpoint = first
    with tempfile.TemporaryDirectory() as folder:
        states = [Path(folder, str(number)) for number in range(robots)]
        for _ in range(count):
            pairs = []
            for number, state in enumerate(states):
                update = travelled(state, checkpoint, fit(number, checkpoint), codec)
                about = Contribution(robot=str(number), site="", examples=update.num_examples)
                pairs.append((about, update))
            checkpoint = FedAvg().fold(checkpoint, UpdatesInMemory(pairs))
            yield checkpoint


def travelled(state: Path, start: Checkpoint, update: Update, codec: Codec) -> Update:
    """Return an update as the server has it, after the robot's residual and the message."""
    from fleet_model.protocol.wire import pack_update, unpack_update

    request = asked(start, codec)
    residual = Residual(state, lambda: (request.run, start.version))
    sent = residual.send(request, residual.before(request), update)
    return decoded(unpack_update(pack_update(sent), "robot"), start.weights)


def asked(start: Checkpoint, codec: Codec) -> "RobotRequest":
    """Return what a robot is sent in a round."""
    from fleet_model.protocol.wire import RobotRequest

    return RobotRequest(
        run="20261201-120000",
        round=start.version + 1,
        checkpoint=start,
        config=TrainConfig(logit_adjustment=1.0),
        trainer="0" * 64,
        trainer_bytes=2000,
        deadline_s=600.0,
        reply_codec=str(codec),
    )


def size_of(weights: Weights, codec: Codec) -> Size:
    """Return the bytes of a round with such tensors and an ordinary reply's measures."""
    from fleet_model.protocol.wire import pack_request, pack_update

    random = np.random.default_rng(1)
    start = Checkpoint(version=1, weights=weights)
    update = Update(
        robot="", base_version=1, num_examples=195, num_steps=35, label_counts=(50, 45, 50, 50),
        metrics=dict.fromkeys(METRICS, 0.5),
        weights={n: random.normal(size=w.shape).astype(np.float32) for n, w in weights.items()},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        sent = Residual(Path(folder), lambda: ("", 0)).send(asked(start, codec), {}, update)
    up, down = pack_update(sent), pack_request(asked(start, codec))
    return Size(up=message_bytes(up), down=message_bytes(down))


def message_bytes(content: "RecordDict") -> int:
    """Return the bytes of all objects that Flower makes of a message's content."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    return sum(len(one.deflate()) for one in get_all_nested_objects(content).values())
