"""How requests and updates travel inside Flower messages: both directions stand side by side."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fleet_model.errors import UpdateError
from fleet_model.types import Checkpoint, Tensor, TrainConfig, Update, Weights

# Record names are those of flwr.serverapp.strategy.FedAvg, so that stock tools can read along.
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
VERSION, TRAINER, RUN, ROUND = "checkpoint-version", "trainer-sha256", "run", "server-round"
NUM_EXAMPLES, NUM_STEPS = "num-examples", "num-steps"
MAX_METRICS, MAX_METRIC_NAME = 100, 100  # a robot's metrics end in the server's history
# What np.save writes for float32 tensors. np.load would believe any header: it reserves memory for
# whatever shape it is told, and opens zip archives.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n",
    re.DOTALL,
)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class TrainRequest:
    """What a robot is asked: train this checkpoint in this way with that trainer."""

    run: str  # names the run in logs and history
    round: int  # within the run, from 1
    checkpoint: Checkpoint
    config: TrainConfig
    trainer: str  # sha256 of trainer.json; a robot that lacks it fetches it first
    trainer_bytes: int  # its size, so that a fetch is bounded
    deadline_s: float  # the round closes then: a training that takes longer is given up


def pack_weights(weights: Weights) -> ArrayRecord:
    """Tensors by name -> Flower arrays by the same name."""
    return ArrayRecord({name: Array(np.asarray(w, order="C")) for name, w in weights.items()})


def unpack_weights(record: ArrayRecord) -> Weights:
    """Flower arrays -> tensors by name; raises UpdateError unless they are whole and float32."""
    return {name: _tensor(name, array.data) for name, array in record.items()}


def pack_request(request: TrainRequest) -> RecordDict:
    """Server side: what a robot receives."""
    record = ConfigRecord(
        {
            RUN: request.run,
            ROUND: request.round,
            VERSION: request.checkpoint.version,
            TRAINER: request.trainer,
            "trainer-bytes": request.trainer_bytes,
            "deadline-s": request.deadline_s,
            **{f.name: getattr(request.config, f.name) for f in fields(TrainConfig)},
        }
    )
    return RecordDict({ARRAYS: pack_weights(request.checkpoint.weights), CONFIG: record})


def unpack_request(content: RecordDict) -> TrainRequest:
    """Robot side: where to start and how to train; raises UpdateError if the server is too new."""
    try:
        record, arrays = content.config_records[CONFIG], content.array_records[ARRAYS]
    except KeyError as error:
        raise UpdateError(f"the server's message lacks the record {error}") from None
    version = int(_number(record, VERSION, int))
    config = {f.name: _number(record, f.name, type(f.default)) for f in fields(TrainConfig)}
    return TrainRequest(
        run=_text(record, RUN),
        round=int(_number(record, ROUND, int)),
        checkpoint=Checkpoint(version=version, weights=unpack_weights(arrays)),
        config=TrainConfig(**config),  # type: ignore[arg-type]  # checked field by field
        trainer=_text(record, TRAINER),
        trainer_bytes=int(_number(record, "trainer-bytes", int)),
        deadline_s=float(_number(record, "deadline-s", float)),
    )


def pack_update(update: Update) -> RecordDict:
    """Robot side: what the server receives."""
    counts: dict[str, int | float] = {
        NUM_EXAMPLES: update.num_examples,
        NUM_STEPS: update.num_steps,
        VERSION: update.base_version,
    }
    metrics = {name: float(value) for name, value in update.metrics.items()}
    return RecordDict(
        {ARRAYS: pack_weights(update.weights), METRICS: MetricRecord({**metrics, **counts})}
    )


def unpack_update(content: RecordDict, robot: str) -> Update:
    """Server side: the update of `robot`, a name from the register; raises UpdateError."""
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
    return Update(
        robot=robot,
        base_version=counts[VERSION],
        weights=unpack_weights(arrays),
        num_examples=counts[NUM_EXAMPLES],
        num_steps=counts[NUM_STEPS],
        metrics={  # NaN and infinity have no place in JSON
            name: value
            for name, value in metrics.items()
            if isinstance(value, float) and math.isfinite(value)
        },
    )


def _tensor(name: str, data: bytes) -> Tensor:
    header = _NPY.match(data, 0, 1024)
    if header is None:
        raise UpdateError(f"{name[:100]} is not a float32 tensor as numpy.save writes it")
    shape = tuple(int(length) for length in header[1].replace(b" ", b"").split(b",") if length)
    if len(data) - header.end() != 4 * math.prod(shape):
        raise UpdateError(f"{name[:100]}: the bytes do not fit its shape")
    try:
        # A view, read-only: a copy of a whole model is what a server has no memory for.
        return np.frombuffer(data, np.float32, offset=header.end()).reshape(shape)
    except ValueError:  # empty, but of more axes or longer ones than there can be
        raise UpdateError(f"{name[:100]}: no tensor can have its shape") from None


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
