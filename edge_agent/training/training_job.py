"""What agent and training process send each other: a job one way, a reply or an error back.

Both travel as packets: two lengths, a JSON header, a safetensors body (never pickle).
"""

import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from edge_agent.examples.source import SourceSpec
from edge_agent.robot.reasons import is_ours
from fleet_model import errors
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import FleetError, FrameError, TrainingError
from fleet_model.types import TRAIN, Checkpoint, TrainConfig, Update, Weights
from fleet_model.weights import join_groups, safetensors_pieces, split_groups, view_safetensors

Packet: TypeAlias = tuple[dict[str, Any], bytes]  # (JSON header, safetensors body)
CORRECTION = "correction"  # group of tensors in a job
LENGTHS = struct.Struct(">IQ")  # header bytes, body bytes


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class TrainingJob:
    """One round's work."""

    trainer: str  # a key of TRAINERS, or "module:attribute"
    spec: TrainerSpec
    directory: Path  # holds the verified files of the trainer's part
    examples: SourceSpec
    checkpoint: Checkpoint
    config: TrainConfig
    kind: str = TRAIN  # of the request
    correction: Weights | None = None  # of the gradient of each step; see protocol/control.py
    sent: Path = Path()  # folder in the robot's state: what it has told of its features before
    personal: tuple[str, ...] = ()  # tensors that this robot keeps
    own: Path = Path()  # folder where it does; only read where there are any


def write_packet(stream: IO[bytes], packet: Packet) -> None:
    """Write a whole packet; raises BrokenPipeError when the other side has gone."""
    header, body = json.dumps(packet[0]).encode(), packet[1]
    stream.write(LENGTHS.pack(len(header), len(body)) + header)
    stream.write(body)
    stream.flush()


def read_packet(stream: IO[bytes]) -> Packet | None:
    """Return the next packet; None at the end of the stream, also in the middle of a packet."""
    lengths = stream.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        return None
    header_bytes, body_bytes = LENGTHS.unpack(lengths)
    header, body = stream.read(header_bytes), stream.read(body_bytes)
    if len(header) < header_bytes or len(body) < body_bytes:
        return None
    return json.loads(header), body


def pack_job(job: TrainingJob) -> Packet:
    """Agent's side."""
    header = {
        "trainer": job.trainer,
        "spec": job.spec.model_dump(mode="json"),
        "directory": str(job.directory),
        "examples": asdict(job.examples),
        "version": job.checkpoint.version,
        "config": asdict(job.config),
        "kind": job.kind,
        "groups": [] if job.correction is None else [CORRECTION],
        "sent": str(job.sent),
        "personal": job.personal,
        "own": str(job.own),
    }
    groups = {} if job.correction is None else {CORRECTION: job.correction}
    return header, b"".join(safetensors_pieces(join_groups(job.checkpoint.weights, groups)))


def unpack_job(packet: Packet) -> TrainingJob:
    """Training process's side."""
    header, body = packet
    weights, groups = split_groups(view_safetensors(body), header["groups"])
    return TrainingJob(
        trainer=header["trainer"],
        spec=TrainerSpec.model_validate(header["spec"]),
        directory=Path(header["directory"]),
        examples=SourceSpec(**header["examples"]),
        checkpoint=Checkpoint(version=header["version"], weights=weights),
        config=TrainConfig(**header["config"]),
        kind=header["kind"],
        correction=groups.get(CORRECTION),
        sent=Path(header["sent"]),
        personal=tuple(header["personal"]),
        own=Path(header["own"]),
    )


def pack_update(update: Update) -> Packet:
    """Training process's side."""
    header = {
        "kind": update.kind,
        "groups": list(update.groups),
        "base_version": update.base_version,
        "num_examples": update.num_examples,
        "num_steps": update.num_steps,
        "metrics": dict(update.metrics),
        "label_counts": update.label_counts,
    }
    tensors = join_groups(update.weights, update.groups)
    return header, b"".join(safetensors_pieces(tensors))


def pack_error(error: FleetError) -> Packet:
    """Training process's side: what is raised at the agent instead of an update."""
    header = {"error": type(error).__name__, "message": str(error), "ours": is_ours(error)}
    if isinstance(error, FrameError):
        header["reason"] = str(error.reason)
    return header, b""


def unpack_update(packet: Packet) -> Update:
    """Agent's side; raises the error that the training process ended the job with."""
    header, body = packet
    if "error" in header:
        error: FleetError = getattr(errors, header["error"], TrainingError)(header["message"])
        error.foreign = not header["ours"]
        if isinstance(error, FrameError):
            error.reason = header["reason"]
        raise error
    weights, groups = split_groups(view_safetensors(body), header.pop("groups"))
    counts = tuple(header.pop("label_counts"))
    return Update(robot="", weights=weights, groups=groups, label_counts=counts, **header)
