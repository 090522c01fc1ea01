"""How requests and replies travel inside Flower messages, both directions side by side.

             request                                   reply
  config     protocol, kind, codec, reply-codec, run,  protocol, kind, codec
             round, ...
  options    training options, one entry per option    -
  metrics    -                                         counts, label counts, the robot's metrics
  arrays     the checkpoint                            the update, or "coded", its bytes
  arrays.X   the group X of further tensors            the group X of further tensors

Messages of protocol 1 have no number, no kind and no further groups: the options of a request lie
in `config`, a reply has none. They are read as before, and written for agents that announce no
number.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from flwr.app import ConfigRecord, MessageType, MetricRecord, RecordDict

from fleet_model.compression.codec import CODED, parse_codec
from fleet_model.errors import UpdateError
from fleet_model.protocol.arrays import (
    ARRAYS,
    NAME,
    pack_groups,
    pack_weights,
    unpack_coded,
    unpack_groups,
    unpack_weights,
)
from fleet_model.protocol.trial import MAX_INT
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL, too_new
from fleet_model.types import (
    EVALUATE,
    FLOAT32,
    TRAIN,
    Checkpoint,
    TrainConfig,
    Update,
    Weights,
)

# Record names are those of flwr.serverapp.strategy.FedAvg, so that stock tools can read along.
CONFIG, METRICS = "config", "metrics"
OPTIONS = "options"
NUMBER, KIND, CODEC = "protocol", "kind", "codec"
VERSION, TRAINER, RUN, ROUND = "checkpoint-version", "trainer-sha256", "run", "server-round"
REPLY_CODEC = "reply-codec"  # asked for; an agent that does not know it replies in float32
PERSONAL = "personal_tensors"  # in OPTIONS
NUM_EXAMPLES, NUM_STEPS = "num-examples", "num-steps"
LABEL_COUNTS = "label-counts"  # a list: servers that do not know it read numbers only
MAX_METRICS, MAX_METRIC_NAME = 100, 100  # a robot's metrics end in the server's history
MAX_LABELS = 10_000
# The options of protocol 1. A later one is sent only where it is not at its default, so that robots
# which do not know it refuse only what they would do wrong. So a default never changes.
FIRST_OPTIONS = (
    "epochs", "batch_size", "learning_rate", "momentum", "proximal_mu", "clip_norm", "seed",
)  # fmt: skip
# Later options without which what a robot learns is right all the same, only less good: agents of
# protocol 1 take part without them.
HELPFUL_OPTIONS = ("logit_adjustment",)


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
    reply_codec: str = FLOAT32  # of the update that is sent back; see compression/codec.py
    # What agents of protocol 1 are sent in place of `trainer`: sha256, bytes. None: the same.
    first_trainer: tuple[str, int] | None = None
    trainer_protocol: int = FIRST_PROTOCOL  # the lowest of an agent that can use the trainer
    labels: tuple[str, ...] = ()  # that are learned, as the trainer has them; not sent
    # Site -> weights that its robots start from in place of the checkpoint's; not sent.
    starts: Mapping[str, Weights] = field(default_factory=dict)
    # (site, robot) -> name in `starts` of its cluster's weights, in place of the site's; not sent.
    cluster_starts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    # Groups that a reply must have, with tensors of these names and shapes; not sent.
    reply_groups: Mapping[str, Weights] = field(default_factory=dict)
    personal: tuple[str, ...] = ()  # tensors that a robot trains and keeps: they are not in replies

    @property
    def lowest_protocol(self) -> int:
        """Return the lowest protocol of an agent that understands this request."""
        needed = _new_options(self.config).keys() - HELPFUL_OPTIONS
        known = self.kind == TRAIN and not (self.groups or self.personal or needed)
        return max(self.trainer_protocol, FIRST_PROTOCOL if known else PROTOCOL)


def not_told(request: RobotRequest, protocol: int) -> list[str]:
    """Return the settings that an agent of this protocol does its work without."""
    if protocol != FIRST_PROTOCOL:
        return []
    options = [f"training.{name}" for name in sorted(_new_options(request.config))]
    return options if request.reply_codec == FLOAT32 else [*options, "rounds.compression"]


def message_type(kind: str) -> str:
    """Return Flower's type of a request, by which a stock ClientApp finds its handler."""
    return {TRAIN: MessageType.TRAIN, EVALUATE: MessageType.EVALUATE}.get(kind, MessageType.QUERY)


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
    asked = {} if request.reply_codec == FLOAT32 else {REPLY_CODEC: request.reply_codec}
    options = {name: getattr(request.config, name) for name in FIRST_OPTIONS}
    arrays = {ARRAYS: pack_weights(request.checkpoint.weights)}
    if first:
        return RecordDict({**arrays, CONFIG: ConfigRecord({**about, **options})})
    return RecordDict(
        {
            **arrays,
            **pack_groups(request.groups),
            CONFIG: ConfigRecord({**about, **asked, **_numbering(request.kind)}),
            OPTIONS: ConfigRecord(
                {**options, **_new_options(request.config), **_personal(request)}
            ),
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
    kind, codec = _kind(record, "the server's message")
    _require_known(codec == FLOAT32, "the server's message", codec)
    personal = _names(options or {}, PERSONAL)
    config = _first_config(record) if options is None else _config(options)
    version = int(_number(record, VERSION, int))
    return RobotRequest(
        kind=kind,
        groups=unpack_groups(content),
        run=_text(record, RUN),
        round=int(_number(record, ROUND, int)),
        checkpoint=Checkpoint(version=version, weights=unpack_weights(arrays)),
        config=config,
        trainer=_text(record, TRAINER),
        trainer_bytes=int(_number(record, "trainer-bytes", int)),
        deadline_s=float(_number(record, "deadline-s", float)),
        reply_codec=_text(record, REPLY_CODEC) if REPLY_CODEC in record else FLOAT32,
        personal=personal,
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
            **pack_groups(update.groups),
            METRICS: MetricRecord({**metrics, **counts}),
            CONFIG: _numbering(update.kind, update.codec),
        }
    )


def unpack_update(content: RecordDict, robot: str) -> Update:
    """Server side: the reply of `robot`, a name from the register; raises UpdateError."""
    record = content.config_records.get(CONFIG)
    kind, codec = (TRAIN, FLOAT32) if record is None else _kind(record, "the reply")
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
        groups=unpack_groups(content),
        robot=robot,
        base_version=counts[VERSION],
        weights=unpack_weights(arrays) if codec == FLOAT32 else {CODED: unpack_coded(arrays)},
        codec=codec,
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


def _numbering(kind: str, codec: str = FLOAT32) -> ConfigRecord:
    return ConfigRecord({NUMBER: PROTOCOL, KIND: kind, CODEC: codec})


def _kind(record: Mapping[str, object], what: str) -> tuple[str, str]:
    """Return a message's kind and codec; refuse what only a newer version can read."""
    if NUMBER not in record:
        return TRAIN, FLOAT32
    if (number := _number(record, NUMBER, int)) > PROTOCOL:
        raise UpdateError(too_new(what, number))
    codec = _text(record, CODEC)
    try:
        codec = str(parse_codec(codec))
    except UpdateError:
        _require_known(False, what, codec)
    kind = _text(record, KIND)
    if not NAME.fullmatch(kind):
        raise UpdateError(f"{what} is of kind {kind!r:.40}, expected a short name such as {TRAIN}")
    return kind, codec


def _require_known(known: bool, what: str, codec: str) -> None:
    if not known:
        raise UpdateError(
            f"{what} has the codec {codec!r:.40}, expected {FLOAT32!r}: update the agent"
        )


def _new_options(config: TrainConfig) -> dict[str, int | float]:
    """Return the options that protocol 1 does not know and that are not at their default."""
    return {
        f.name: getattr(config, f.name)
        for f in fields(TrainConfig)
        if f.name not in FIRST_OPTIONS and getattr(config, f.name) != f.default
    }


def _personal(request: RobotRequest) -> dict[str, list[str]]:
    """Return the names as an option: an agent that does not know them refuses the request so."""
    return {PERSONAL: list(request.personal)} if request.personal else {}


def _first_config(record: Mapping[str, object]) -> TrainConfig:
    options = [f for f in fields(TrainConfig) if f.name in FIRST_OPTIONS]
    return TrainConfig(**{f.name: _number(record, f.name, type(f.default)) for f in options})  # type: ignore[arg-type]  # checked field by field


def _config(options: Mapping[str, object]) -> TrainConfig:
    """Return how to train; an option that is not known is refused, never ignored."""
    known = {f.name: type(f.default) for f in fields(TrainConfig)}
    if unknown := [name for name in options if name not in known and name != PERSONAL]:
        raise UpdateError(
            f"this agent does not know the training option {unknown[0][:60]}; update the agent or "
            "remove the option from [training] in the server's server.toml"
        )
    return TrainConfig(**{n: _number(options, n, known[n]) for n in options if n != PERSONAL})  # type: ignore[arg-type]  # checked one by one


def _number(record: Mapping[str, object], key: str, kind: type) -> int | float:
    value = record.get(key)
    if isinstance(value, int | float) and type(value) is kind:
        return value
    raise UpdateError(
        f"the message has {key}={value!r:.60}, expected {kind.__name__}; do robot and server run "
        "the same version of fleetlearn?"
    )


def _names(record: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = record.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UpdateError(f"the message has {key}={value!r:.60}, expected names of tensors")
    return tuple(value)


def _text(record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise UpdateError(
            f"the message has {key}={value!r:.60}, expected text; do robot and server run the same "
            "version of fleetlearn?"
        )
    return value
