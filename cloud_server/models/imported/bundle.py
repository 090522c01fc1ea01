"""Write what is published of another tool's file: the file itself, and what says how it is read."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    WRITTEN_PROTOCOL,
    Manifest,
    Task,
    WorkloadSpec,
    entry_of,
    entry_of_file,
    parse_trainer,
    to_json,
)
from fleet_model.engine import TFLiteEngine
from fleet_model.workloads.object_detector.imported import ImportedDetector

WORKLOAD = "imported-detector"
NAME = "detector"  # of the file in a bundle; its suffix says what runs it
PRECISIONS = ("fp32", "int8")  # a robot gets the file whichever it asks for
LONGEST_NAME = 100  # characters, as Manifest.imported


def write_imported(
    file: Path,
    workload: ImportedDetector,
    model: Path,
    version: int,
    created_at: str,
    directory: Path,
) -> None:
    """Write the bundle directory of a version, and run it once.

    Args:
        file: of the other tool.
        workload: how it is read.
        model: directory of the trainer: robots train the fleet's own model, whatever they run.
        version: number of the bundle.
        created_at: UTC, ISO 8601.
        directory: an existing one.

    Raises:
        BundleError: it does not run.
    """
    spec = WorkloadSpec(name=WORKLOAD, config=dict(workload.config))
    content = Content(file, f"{NAME}{file.suffix}", spec, workload.task, shown(file.name))
    write_untrained(content, model, version, created_at, directory)


class Content(NamedTuple):
    """What robots run of a version that nobody trains."""

    file: Path
    name: str  # of the file in the bundle; its suffix says what runs it
    workload: WorkloadSpec  # how it is read
    task: Task
    told: str  # what it is, see `shown`
    metrics: Mapping[str, float] = {}


def write_untrained(
    content: Content, model: Path, version: int, created_at: str, directory: Path
) -> None:
    """Write the bundle directory of a version that nobody trains; see `write_imported`."""
    shutil.copyfile(content.file, directory / content.name)
    trainer = (model / TRAINER).read_bytes()
    (directory / TRAINER).write_bytes(trainer)
    spec, task = parse_trainer(trainer), content.task
    former = spec.task.former if spec.task else {}
    task = task.model_copy(update={"former": former} if former else {})
    manifest = Manifest(
        format=1,
        protocol=WRITTEN_PROTOCOL,
        version=version,
        created_at=created_at,
        workload=content.workload,
        labels=task.classes,
        inputs=task.inputs,
        task=task,
        engines=dict.fromkeys(PRECISIONS, (content.name,)),
        trainer=entry_of(trainer),
        files={content.name: entry_of_file(directory / content.name)},
        metrics=dict(content.metrics),
        imported=content.told,
    )
    (directory / MANIFEST).write_bytes(to_json(manifest))
    TFLiteEngine(directory).warm_up()


def shown(name: str) -> str:
    """Return a file's name as it is told to robots and people."""
    return "".join(c if c.isprintable() else "?" for c in name)[-LONGEST_NAME:]
