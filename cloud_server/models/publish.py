"""Checkpoint -> exported bundle -> model store -> channel; versions that are too old go."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud_server.models.export import BundleJob, Progress, run_export
from cloud_server.models.release_log import ReleaseLog
from cloud_server.robots.last_seen import installed_versions
from cloud_server.signing.signing import offer
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import Manifest
from fleet_model.errors import BundleError
from fleet_model.protocol.proof import utc_now
from fleet_model.types import Checkpoint

log = logging.getLogger(__name__)
ASIDE = ".bundle-"  # how folders begin that the next start of the server removes


def publish(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    checkpoint: Checkpoint,
    progress: Progress = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[], object] = lambda: None,
) -> Manifest:
    """Export `checkpoint` in a child process and make it the newest model of the channel.

    `tell` is called just before robots can get it.

    Raises:
        ExportError: the exported files do not match the model; the channel keeps its version.
        StoppedError: `stop` returned true; the channel keeps its version.
    """
    model = server_dir.model_of(checkpoint.version)
    weights = Checkpoints(server_dir.checkpoints).path(checkpoint.version)
    with exported(server_dir, settings, model, weights, checkpoint.version, progress, stop) as made:
        return offer_bundle(server_dir, settings, model, made, tell)


def offer_bundle(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    model: Path,
    made: Path,
    tell: Callable[[], object] = lambda: None,
) -> Manifest:
    """Make an exported bundle the newest model of the channel; `tell` as for `publish`."""
    manifest = DirectoryStore(server_dir.store).add(made, model, server_dir.lineage)
    tell()
    offer(server_dir, settings.channel, manifest.version)
    prune(server_dir, settings)
    return manifest


@contextmanager
def exported(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    model: Path,
    weights: Path,
    version: int,
    progress: Progress = lambda line: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Path]:
    """Yield the bundle directory of a version, made by a child process; it is removed at the end.

    Raises ExportError and StoppedError as `publish` does.
    """
    with bundle_job(server_dir, settings, model, weights, version) as job:
        run_export(job, progress, stop)
        yield job.directory


@contextmanager
def bundle_job(
    server_dir: ServerDirectory, settings: PublishSettings, model: Path, weights: Path, version: int
) -> Iterator[BundleJob]:
    """Yield the job that exports a version into a folder of its own, which is removed at the end.

    Args:
        server_dir: where the folder is made.
        settings: of publishing.
        model: directory that an InitJob has written.
        weights: file of the trained tensors.
        version: their number.
    """
    server_dir.store.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=server_dir.store))
    try:
        yield BundleJob(
            model=model,
            weights=weights,
            version=version,
            created_at=utc_now().isoformat(timespec="seconds"),
            directory=aside,
            calibration=settings.calibration,
        )
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def prune(server_dir: ServerDirectory, settings: PublishSettings) -> None:
    """Delete versions that are too old; what goes wrong is logged, and tried again next time.

    What robots have installed stays: a robot that was away for long can still repair its files.
    """
    try:
        gone = stale(server_dir, DirectoryStore(server_dir.store), settings.keep_versions)
    except (BundleError, OSError, ValueError) as error:
        log.warning("old versions are not deleted: %s", error)
        return
    if gone:
        log.info("%d old versions are deleted, the newest of them %d", len(gone), gone[-1])


def stale(server_dir: ServerDirectory, store: DirectoryStore, keep: int) -> list[int]:
    """Delete all but the newest `keep` versions and what is still needed; return what is gone."""
    return store.prune(keep, also=installed_versions(server_dir.seen))


def released_version(server_dir: ServerDirectory, channel: str) -> int | None:
    """Return the version of this lineage that robots get; None if they get none of it.

    Raises:
        BundleError: the channel's file is damaged.
    """
    version, lineage = DirectoryStore(server_dir.store).offers().get(channel, (None, ""))
    return version if lineage == server_dir.lineage else None


def imported_file(server_dir: ServerDirectory, channel: str) -> tuple[int, str]:
    """Return the version that a channel offers, and the file of another tool that it is; 0, "".

    Raises:
        BundleError: the channel's file is damaged.
    """
    offer = DirectoryStore(server_dir.store).latest(channel)
    if offer is None or not offer.manifest.imported:
        return 0, ""
    return offer.manifest.version, offer.manifest.imported


def leave_withheld(server_dir: ServerDirectory, channel: str, by: str) -> None:
    """Let what follows begin with what robots run, not with a checkpoint that the gate withholds.

    A run that goes on (`by` is "run ID") keeps its own. See docs/decisions/0024-gate.md.
    """
    checkpoints, releases = Checkpoints(server_dir.checkpoints), ReleaseLog(server_dir.releases)
    newest = checkpoints.newest()
    last = None if newest is None else releases.by_version().get(newest)
    if newest is None or last is None or not last.left_behind or last.by == by:
        return
    released = released_version(server_dir, channel)
    if released is not None:
        releases.add(newest + 1, "returned", by, of=released)
        checkpoints.copy(released, newest + 1)
        log.info("%s: begins with version %d, version %d is withheld", by, released, newest)
