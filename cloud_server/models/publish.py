"""Checkpoint -> exported bundle -> model store -> channel."""

import shutil
import tempfile
from pathlib import Path

from cloud_server.models.export import BundleJob, Progress, run_export
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import Manifest
from fleet_model.protocol.proof import utc_now
from fleet_model.types import Checkpoint


def publish(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    checkpoint: Checkpoint,
    progress: Progress = lambda line: None,
) -> Manifest:
    """Export `checkpoint` in a child process and make it the newest model of the channel.

    Raises:
        ExportError: the exported files do not match the model; the channel keeps its version.
    """
    server_dir.store.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".bundle-", dir=server_dir.store))
    try:
        job = BundleJob(
            model=server_dir.model,
            weights=Checkpoints(server_dir.checkpoints).path(checkpoint.version),
            version=checkpoint.version,
            created_at=utc_now().isoformat(timespec="seconds"),
            directory=aside,
            calibration=settings.calibration,
        )
        run_export(job, progress)
        return DirectoryStore(server_dir.store).publish(aside, settings.channel, server_dir.model)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
