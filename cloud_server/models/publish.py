"""Checkpoint -> exported bundle -> model store -> channel; versions that are too old go."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud_server.models.export import BundleJob, Progress, run_export
from cloud_server.robots.last_seen import installed_versions
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
) -> Manifest:
    """Export `checkpoint` in a child process and make it the newest model of the channel.

    Raises:
        ExportError: the exported files do not match the model; the channel keeps its version.
        StoppedError: `stop` returned true; the channel keeps its version.
    """
    model = server_dir.model_of(checkpoint.version)
    weights = Checkpoints(server_dir.checkpoints).path(checkpoint.version)
    store = DirectoryStore(server_dir.store)
    with exported(server_dir, settings, model, weights, checkpoint.version, progress, stop) as made:
        manifest = store.publish(made, settings.channel, model, server_dir.lineage)
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
    server_dir.store.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=server_dir.store))
    try:
        job = BundleJob(
            model=model,
            weights=weights,
            version=version,
            created_at=utc_now().isoformat(timespec="seconds"),
            directory=aside,
            calibration=settings.calibration,
        )
        run_export(job, progress, stop)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def prune(server_dir: ServerDirectory, settings: PublishSettings) -> None:
    """Delete versions that are too old; what goes wrong is logged, and tried again next time.

    What robots have installed stays: a robot that was away for long can still repair its files.
    """
    try:
        installed = installed_versions(server_dir.seen)
        gone = DirectoryStore(server_dir.store).prune(settings.keep_versions, also=installed)
    except (BundleError, OSError, ValueError) as error:
        log.warning("old versions are not deleted: %s", error)
        return
    if gone:
        log.info("%d old versions are deleted, the newest of them %d", len(gone), gone[-1])
