"""Publish a detector that another tool has trained: robots run it, and the fleet trains its own.

The version takes a number as any other, and the newest checkpoint is copied under it: what robots
run and what rounds begin with have the same number and are two models. See
docs/decisions/0043-imported-engines.md.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from cloud_server.models.export import Progress
from cloud_server.models.imported.bundle import shown, write_imported
from cloud_server.models.imported.checks import Checked, check
from cloud_server.models.imported.engine_file import Seen, Wish, look_at
from cloud_server.models.imported.labels import label_indices
from cloud_server.models.publish import ASIDE, leave_withheld, prune
from cloud_server.models.release_log import BY_IMPORT, ReleaseLog
from cloud_server.rollback import next_number
from cloud_server.runs.run_store import require_no_run
from cloud_server.signing.signing import offer, require_may_offer
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.durable import making_folder, telling_of_the_disk
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.workload import rebuild
from fleet_model.workloads.object_detector import ObjectDetector
from fleet_model.workloads.object_detector.imported import ImportedDetector

WriteBundle: TypeAlias = Callable[[Path, int, str, Path], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """What the operator wants imported."""

    file: Path
    classes: Sequence[str] = ()  # of the file, in order; none: the fleet's labels
    renamed: Mapping[str, str] = field(default_factory=dict)  # class of the file -> label
    without: Sequence[str] = ()  # labels that the file cannot find
    drop_others: bool = False  # classes that are no label are left out
    wish: Wish = field(default_factory=Wish)
    samples: Sequence[Path] = ()
    threads: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Importable:
    """A file that has passed all checks."""

    plan: ImportPlan
    workload: ImportedDetector
    seen: Seen
    checked: Checked


def examine(server_dir: ServerDirectory, plan: ImportPlan, progress: Progress) -> Importable:
    """Return what a file is, after it has answered pictures; nothing is changed.

    Args:
        server_dir: with the lineage whose robots are to run it.
        plan: what is wanted.
        progress: is told of each step.

    Raises:
        SettingsError: the fleet learns no boxes, labels differ, or a wish does not fit.
        BundleError: the file cannot be run, or does not answer as its layout says.
    """
    fleet = _fleet_detector(server_dir)
    progress("look at the file")
    seen = look_at(plan.file, plan.wish, plan.threads)
    classes = tuple(plan.classes) or fleet.labels
    if seen.columns is not None and seen.columns != len(classes):
        whose = "--labels names" if plan.classes else "the fleet has"
        raise SettingsError(
            f"{plan.file.name}: has {seen.columns} classes, and {whose} {len(classes)}: give "
            "--labels one name for each class of the file, in its order; - stands for one that is "
            "nothing"
        )
    indices = label_indices(
        classes, fleet.labels, plan.renamed, plan.without, drop_others=plan.drop_others
    )
    reading = seen.reading.model_copy(update={"classes": indices})
    workload = ImportedDetector(fleet.labels, fleet.image_size, reading.model_dump(mode="json"))
    stage = workload.open_stage(plan.file, plan.threads)
    checked = check(stage, workload, classes, plan.samples, progress)
    return Importable(plan=plan, workload=workload, seen=seen, checked=checked)


def publish_imported(
    server_dir: ServerDirectory, settings: PublishSettings, made: Importable
) -> int:
    """Make it the newest model of the channel; return its number.

    Raises:
        SettingsError: a run or a rollout on the channel goes on.
        CheckpointError: the newest checkpoint is damaged.
        BundleError: the file has changed since it was examined, and does not run.
    """
    file = made.plan.file
    write = partial(write_imported, file, made.workload)
    return publish_engine(server_dir, settings, shown(file.name), write)


def publish_engine(
    server_dir: ServerDirectory, settings: PublishSettings, told: str, write: WriteBundle
) -> int:
    """Make a bundle that nobody trains the newest model of the channel; return its number.

    Args:
        server_dir: with the lineage whose robots are to run it.
        settings: the channel.
        told: what it is, for the release.
        write: writes the bundle of (trainer's directory, number, time, directory).

    Raises:
        FleetError: as `publish_imported`.
    """
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    with server_dir.locked("train"):
        require_no_run(server_dir)
        require_may_offer(server_dir, settings.channel)
        leave_withheld(server_dir, settings.channel, BY_IMPORT)
        newest = checkpoints.latest().version
        number, model = next_number(server_dir), server_dir.model_of(newest)
        server_dir.store.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=ASIDE, dir=server_dir.store) as aside:
            now = utc_now().isoformat(timespec="seconds")
            write(model, number, now, Path(aside))
            # Before it is published: killed in between, a number is lost, and nothing else.
            checkpoints.copy(newest, number)
            store.add(Path(aside), model, server_dir.lineage)
        releases = ReleaseLog(server_dir.releases)
        releases.add(number, "published", BY_IMPORT, imported=told)
        offer(server_dir, settings.channel, number)
    prune(server_dir, settings)
    return number


def write_out(server_dir: ServerDirectory, made: Importable, out: Path) -> None:
    """Write it as the folder of a bundle, of the newest checkpoint's number; nothing is published.

    Raises:
        SettingsError: `out` is there already.
        StorageError: it cannot be written.
        BundleError: the file has changed since it was examined, and does not run.
    """
    if out.exists():
        raise SettingsError(f"--out {out}: is there already; name a folder that is not")
    newest = Checkpoints(server_dir.checkpoints).latest().version
    now = utc_now().isoformat(timespec="seconds")
    aside = out.with_name(f".{out.name}.new")
    told = telling_of_the_disk(f"--out {out}", "name another place, or make room")
    with told, making_folder(out, aside):
        model = server_dir.model_of(newest)
        write_imported(made.plan.file, made.workload, model, newest, now, aside)


def _fleet_detector(server_dir: ServerDirectory) -> ObjectDetector:
    """Return what the fleet learns; raises SettingsError unless these are boxes."""
    checkpoints = Checkpoints(server_dir.checkpoints)
    newest = checkpoints.newest()
    if newest is None:
        raise CheckpointError(f"{server_dir.checkpoints}: no checkpoint; `cloud-server repair DIR`")
    trainer = parse_trainer((server_dir.model_of(newest) / TRAINER).read_bytes())
    workload = rebuild(trainer.workload)
    if not isinstance(workload, ObjectDetector):
        raise SettingsError(
            f"{server_dir.root}: this fleet learns {trainer.workload.name!r}, and detectors are "
            "imported into one of the workload 'object-detector'; make one with `cloud-server init "
            "DIR --workload object-detector --labels ...`"
        )
    return workload
