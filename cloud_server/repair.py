"""Make again what is missing in a server directory and follows from what is left."""

from collections.abc import Iterator

from cloud_server.models.export import Progress
from cloud_server.models.publish import exported
from cloud_server.models.release_log import ReleaseLog
from cloud_server.signing.signing import offer
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import faults_of_kit, write_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.signatures import WEIGHTS
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights


def repair(
    server_dir: ServerDirectory,
    settings: ServerSettings,
    progress: Progress,
    *,
    start_again: bool = False,
) -> Iterator[str]:
    """Repair checkpoints, store and kit, in this order; yield a sentence about each change.

    Nothing that is whole is touched. Published versions are exported again from their checkpoints.

    Args:
        server_dir: its server may run, but for checkpoints.
        settings: as in server.toml.
        progress: is given one line for each step of an export.
        start_again: where all checkpoints are lost, begin with the initial weights.

    Raises:
        CheckpointError: checkpoints are lost, and `start_again` is not set.
        ExportError: a version cannot be exported.
        SettingsError: it is a site relay, which has nothing to repair.
    """
    if server_dir.is_relay:
        raise SettingsError(
            f"{server_dir.root}: a site relay fetches what it lacks by itself; to begin again, "
            "remove its store folder and start it"
        )
    for one in server_dir.lineages():
        if Checkpoints(one.checkpoints).newest() is None:
            yield _first_checkpoint(one, start_again=start_again)
    store = DirectoryStore(server_dir.store)
    for one in server_dir.lineages():
        yield from _versions(one, store, settings, progress)
    own = server_dir.of(settings.publish.channel)
    if settings.publish.channel not in store.offers():
        version = store.published(own.lineage)[-1:] or [_add_newest(own, store, settings, progress)]
        offer(own, settings.publish.channel, version[0])
        yield f"channel {settings.publish.channel} offers version {version[0]} again"
    if faults_of_kit(server_dir, settings):
        write_kit(server_dir, settings)
        yield f"{server_dir.kit} is written again: copy it to robots that are still to be enrolled"


def _first_checkpoint(server_dir: ServerDirectory, *, start_again: bool) -> str:
    """Save the initial weights under a version that no robot has; nothing is published."""
    initial = server_dir.model / WEIGHTS
    if not start_again:
        raise CheckpointError(
            f"{server_dir.checkpoints}: no checkpoint is left, and the trained weights with it; "
            "restore the folder from a backup. To train again from the initial weights: "
            "`cloud-server repair DIR --start-again`"
        )
    versions = DirectoryStore(server_dir.store).published(server_dir.lineage)
    version = max(versions, default=-1) + 1
    server_dir.checkpoints.mkdir(exist_ok=True)
    with server_dir.locked("train"):
        first = Checkpoint(version=version, weights=read_weights(initial))
        Checkpoints(server_dir.checkpoints).save(first, model=server_dir.model.name)
    return f"training begins again from the initial weights, as version {version}"


def _versions(
    server_dir: ServerDirectory, store: DirectoryStore, settings: ServerSettings, progress: Progress
) -> Iterator[str]:
    """Export versions that lack files again, and what a channel offers without a manifest."""
    lineage = server_dir.lineage
    offered = {version for version, of in store.offers().values() if of == lineage}
    for version in sorted({*store.published(lineage), *offered}):
        if not store.lacking(version, lineage, read=True):
            continue
        release = ReleaseLog(server_dir.releases).by_version().get(version)
        if release is not None and release.imported:
            yield (
                f"version {version} cannot be made again, it is {release.imported}: "
                "`cloud-server import-engine DIR FILE` publishes that file as a new version"
            )
            continue
        try:
            Checkpoints(server_dir.checkpoints).load(version)
        except CheckpointError:
            if version in offered:
                yield f"version {version} cannot be made again: its checkpoint is gone"
            else:
                store.remove(version, lineage)
                yield f"version {version} is removed: its files and its checkpoint are gone"
        else:
            _export(server_dir, store, settings, version, progress)
            yield f"version {version} is exported again"


def _add_newest(
    server_dir: ServerDirectory, store: DirectoryStore, settings: ServerSettings, progress: Progress
) -> int:
    version = Checkpoints(server_dir.checkpoints).latest().version
    _export(server_dir, store, settings, version, progress)
    return version


def _export(
    server_dir: ServerDirectory,
    store: DirectoryStore,
    settings: ServerSettings,
    version: int,
    progress: Progress,
) -> None:
    model = server_dir.model_of(version)
    weights = Checkpoints(server_dir.checkpoints).path(version)
    with exported(server_dir, settings.publish, model, weights, version, progress) as bundle:
        store.add(bundle, model, server_dir.lineage)
