"""How requests and replies travel inside Flower messages, both directions side by side.

             request                                   reply
  config     protocol, kind, codec, run, round, ...    protocol, kind, codec
  options    training options, one entry per option    -
  metrics    -                                         counts, label counts, the robot's metrics
  arrays     the checkpoint                            the update
  arrays.X   the group X of further tensors            the group X of further tensors

Messages of protocol 1 have no number, no kind and no further groups: the options of a request lie
in `config`, a reply has none. They are read as before, and written for agents that announce no
number.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MessageType, MetricRecord, RecordDict

from fleet_model.errors import UpdateError, one_line
from fleet_model.protocol.trial import MAX_INT
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL, too_new
from fleet_model.types import EVALUATE, TRAIN, Checkpoint, Tensor, TrainConfig, Update, Weights

# Record names are those of flwr.serverapp.strategy.FedAvg, so that stock tools can read along.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
OPTIONS, GROUP = "options", "arrays."
NUMBER, KIND, CODEC = "protocol", "kind", "codec"
FLOAT32 = "float32"  # the only codec so far: every tensor as it is
VERSION, TRAINER, RUN, ROUND = "checkpoint-version", "trainer-sha256", "run", "server-round"
NUM_EXAMPLES, NUM_STEPS = "num-examples", "num-steps"
LABEL_COUNTS = "label-counts"  # a list: servers that do not know it read numbers only
MAX_METRICS, MAX_METRIC_NAME = 100, 100  # a robot's metrics end in the server's history
MAX_GROUPS = 8
MAX_LABELS = 10_000
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")  # of kinds and groups
# The options of protocol 1. A later one is sent only where it is not at its default, so that robots
# which do not know it refuse only what they would do wrong. So a default never changes.
FIRST_OPTIONS = (
    "epochs", "batch_size", "learning_rate", "momentum", "proximal_mu", "clip_norm", "seed",
)  # fmt: skip
# Later options without which what a robot learns is right all the same, only less good: agents of
# protocol 1 take part without them.
HELPFUL_OPTIONS = ("logit_adjustment",)
# What np.save writes for float32 tensors. np.load would believe any header: it reserves memory for
# whatever shape it is told, and opens zip archives.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RobotRequest:
    """What a robot is asked to do with a checkpoint, by default to train it."""

    kind: str = TRAIN  # names the handler on the robot, and what the reply is to the server
    run: str  # names the run in logs and history
    round: int  # within the run, from 1
    checkpoint: Checkpoint
    config: TrainConfig
    trainer: str  # sha256 of trainer.json; a robot that lacks it fetches it first
    trainer_bytes: int  # its size, so that a fetch is bounded
    deadline_s: float  # the round closes then: work that takes longer is given up
    groups: Mapping[str, Weights] = field(default_factory=dict)  # further tensors, by group
    # What agents of protocol 1 are sent in place of `trainer`: sha256, bytes. None: the same.
    first_trainer: tuple[str, int] | None = None
    trainer_protocol: int = FIRST_PROTOCOL  # the lowest of an agent that can use the trainer
    labels: tuple[str, ...] = ()  # that are learned, as the trainer has them; not sent

    @property
    def lowest_protocol(self) -> int:
        """Return the lowest protocol of an agent that understands this request."""
        needed = _new_options(self.config).keys() - HELPFUL_OPTIONS
        known = self.kind == TRAIN and not self.groups and not needed
        return max(self.trainer_protocol, FIRST_PROTOCOL if known else PROTOCOL)


def not_told(request: RobotRequest, protocol: int) -> list[str]:
    """Return the training options that an agent of this protocol does its work without."""
    return sorted(_new_options(request.config)) if protocol == FIRST_PROTOCOL else []


def message_type(kind: str) -> str:
    """Return Flower's type of a request, by which a stock ClientApp finds its handler."""
    return {TRAIN: MessageType.TRAIN, EVALUATE: MessageType.EVALUATE}.get(kind, MessageType.QUERY)


def pack_weights(weights: Weights) -> ArrayRecord:
    """Tensors by name -> Flower arrays by the same name."""
    return ArrayRecord({name: Array(np.asarray(w, order="C")) for name, w in weights.items()})


def unpack_weights(record: ArrayRecord) -> Weights:
    """Flower arrays -> tensors by name; raises UpdateError unless they are whole and float32."""
    return {name: _tensor(name, array.data) for name, array in record.items()}


def pack_request(request: RobotRequest, protocol: int = PROTOCOL) -> RecordDict:
    """Server side: what a robot of that protocol receives; see RobotRequest.lowest_protocol."""
    first = protocol == FIRST_PROTOCOL
    trainer, trainer_bytes = request.trainer, request.trainer_bytes
    if first and request.first_trainer is not None:
        trainer, trainer_bytes = request.first_trainer
    about: dict[str, str | int | float] = {
        RUN: request.run,
        ROUND: request.round,
        VERSION: request.checkpoint.version,
        TRAINER: trainer,
        "trainer-bytes": trainer_bytes,
        "deadline-s": request.deadline_s,
    }
    options = {name: getattr(request.config, name) for name in FIRST_OPTIONS}
    arrays = {ARRAYS: pack_weights(request.checkpoint.weights)}
    if first:
        return RecordDict({**arrays, CONFIG: ConfigRecord({**about, **options})})
    return RecordDict(
        {
            **arrays,
            **_pack_groups(request.groups),
            CONFIG: ConfigRecord({**about, **_numbering(request.kind)}),
            OPTIONS: ConfigRecord({**options, **_new_options(request.config)}),
        }
    )


def unpack_request(content: RecordDict) -> RobotRequest:
    """Robot side: what to do, where to start and how.

    Raises:
        UpdateError: the message is damaged, or of a server that is too new for this robot.
    """
    try:
        record, arrays = content.config_records[CONFIG], content.array_records[ARRAYS]
        options = content.config_records[OPTIONS] if NUMBER in record else None
    except KeyError as error:
        raise UpdateError(f"the server's message lacks the record {error}") from None
    kind = _kind(record, "the server's message")
    config = _first_config(record) if options is None else _config(options)
    version = int(_number(record, VERSION, int))
    return RobotRequest(
        kind=kind,
        groups=_unpack_groups(content),
        run=_text(record, RUN),
        round=int(_number(record, ROUND, int)),
        checkpoint=Checkpoint(version=version, weights=unpack_weights(arrays)),
        config=config,
        trainer=_text(record, TRAINER),
        trainer_bytes=int(_number(record, "trainer-bytes", int)),
        deadline_s=float(_number(record, "deadline-s", float)),
    )


def pack_update(update: Update) -> RecordDict:
    """Robot side: what the server receives."""
    counts: dict[str, int | float | list[int]] = {
        NUM_EXAMPLES: update.num_examples,
        NUM_STEPS: update.num_steps,
        VERSION: update.base_version,
    }
    if update.label_counts:
        counts[LABEL_COUNTS] = list(update.label_counts)
    metrics = {name: float(value) for name, value in update.metrics.items()}
    return RecordDict(
        {
            ARRAYS: pack_weights(update.weights),
            **_pack_groups(update.groups),
            METRICS: MetricRecord({**metrics, **counts}),
            CONFIG: _numbering(update.kind),
        }
    )


def unpack_update(content: RecordDict, robot: str) -> Update:
    """Server side: the reply of `robot`, a name from the register; raises UpdateError."""
    record = content.config_records.get(CONFIG)
    kind = TRAIN if record is None else _kind(record, "the reply")
    try:
        metrics, arrays = content.metric_records[METRICS], content.array_records[ARRAYS]
    except KeyError as error:
        raise UpdateError(f"the reply lacks the record {error}") from None
    counts = {key: int(_number(metrics, key, int)) for key in (NUM_EXAMPLES, NUM_STEPS, VERSION)}
    if counts[NUM_EXAMPLES] <= 0:
        raise UpdateError(f"{NUM_EXAMPLES} is {counts[NUM_EXAMPLES]}, expected > 0")
    if len(metrics) > MAX_METRICS or max(map(len, metrics)) > MAX_METRIC_NAME:
        raise UpdateError(
            f"expected at most {MAX_METRICS} metrics with names of at most "
            f"{MAX_METRIC_NAME} characters"
        )
    if strange := [name for name in metrics if not name.isprintable()]:  # tables show names
        raise UpdateError(f"the metric {strange[0]!a} has a name that is not printable")
    return Update(
        kind=kind,
        groups=_unpack_groups(content),
        robot=robot,
        base_version=counts[VERSION],
        weights=unpack_weights(arrays),
        num_examples=counts[NUM_EXAMPLES],
        num_steps=counts[NUM_STEPS],
        label_counts=_label_counts(metrics.get(LABEL_COUNTS, [])),
        metrics={  # NaN and infinity have no place in JSON
            name: value
            for name, value in metrics.items()
            if isinstance(value, float) and math.isfinite(value)
        },
    )


def _label_counts(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise UpdateError(f"{LABEL_COUNTS} is no list of at most {MAX_LABELS} numbers")
    if odd := [n for n in value if type(n) is not int or not 0 <= n <= MAX_INT]:
        raise UpdateError(f"{LABEL_COUNTS} has {odd[0]!r:.40}, expected numbers of examples")
    return tuple(value)


def _numbering(kind: str) -> ConfigRecord:
    return ConfigRecord({NUMBER: PROTOCOL, KIND: kind, CODEC: FLOAT32})


def _kind(record: Mapping[str, object], what: str) -> str:
    """Return what kind of message it is; refuse what only a newer version can read."""
    if NUMBER not in record:
        return TRAIN
    if (number := _number(record, NUMBER, int)) > PROTOCOL:
        raise UpdateError(too_new(what, number))
    if (codec := _text(record, CODEC)) != FLOAT32:
        raise UpdateError(
            f"{what} has the codec {codec!r:.40}, expected {FLOAT32!r}: update the agent"
        )
    kind = _text(record, KIND)
    if not NAME.fullmatch(kind):
        raise UpdateError(f"{what} is of kind {kind!r:.40}, expected a short name such as {TRAIN}")
    return kind


def _new_options(config: TrainConfig) -> dict[str, int | float]:
    """Return the options that protocol 1 does not know and that are not at their default."""
    return {
        f.name: getattr(config, f.name)
        for f in fields(TrainConfig)
        if f.name not in FIRST_OPTIONS and getattr(config, f.name) != f.default
    }


def _first_config(record: Mapping[str, object]) -> TrainConfig:
    options = [f for f in fields(TrainConfig) if f.name in FIRST_OPTIONS]
    return TrainConfig(**{f.name: _number(record, f.name, type(f.default)) for f in options})  # type: ignore[arg-type]  # checked field by field


def _config(options: Mapping[str, object]) -> TrainConfig:
    """Return how to train; an option that is not known is refused, never ignored."""
    known = {f.name: type(f.default) for f in fields(TrainConfig)}
    if unknown := [name for name in options if name not in known]:
        raise UpdateError(
            f"this agent does not know the training option {unknown[0][:60]}; update the agent or "
            "remove the option from [training] in the server's server.toml"
        )
    return TrainConfig(**{name: _number(options, name, known[name]) for name in options})  # type: ignore[arg-type]  # checked one by one


def _pack_groups(groups: Mapping[str, Weights]) -> dict[str, ArrayRecord]:
    return {GROUP + name: pack_weights(tensors) for name, tensors in groups.items()}


def _unpack_groups(content: RecordDict) -> Mapping[str, Weights]:
    found = {name: r for name, r in content.array_records.items() if name != ARRAYS}
    if len(found) > MAX_GROUPS:
        raise UpdateError(f"{len(found)} groups of tensors, expected at most {MAX_GROUPS}")
    groups = {}
    for name, record in found.items():
        group = name.removeprefix(GROUP)
        if group == name or not NAME.fullmatch(group):
            raise UpdateError(f"{name!r:.60} is no name of a group of tensors")
        groups[group] = unpack_weights(record)
    return groups


def _tensor(name: str, data: bytes) -> Tensor:
    header = _NPY.match(data, 0, 1024)
    if header is None:
        raise UpdateError(f"{_named(name)} is not a float32 tensor as numpy.save writes it")
    shape = tuple(int(length) for length in header[1].replace(b" ", b"").split(b",") if length)
    if len(data) - header.end() != 4 * math.prod(shape):
        raise UpdateError(f"{_named(name)}: the bytes do not fit its shape")
    try:
        # A view, read-only: a copy of a whole model is what a server has no memory for.
        return np.frombuffer(data, np.float32, offset=header.end()).reshape(shape)
    except ValueError:  # empty, but of more axes or longer ones than there can be
        raise UpdateError(f"{_named(name)}: no tensor can have its shape") from None


def _named(name: str) -> str:
    """Return the other side's name for a tensor, as far as a message may quote it."""
    return one_line(name[:100])


def _number(record: Mapping[str, object], key: str, kind: type) -> int | float:
    value = record.get(key)
    if isinstance(value, int | float) and type(value) is kind:
        return value
    raise UpdateError(
        f"the message has {key}={value!r:.60}, expected {kind.__name__}; do robot and server run "
        "the same version of fleetlearn?"
    )


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise UpdateError(
            f"the message has {key}={value!r:.60}, expected text; do robot and server run the same "
            "version of fleetlearn?"
        )
    return value
