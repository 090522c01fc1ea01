"""What of a server directory is gone, found by looking at names: cheap enough for every status."""

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import BundleError

REBUILD = "rebuild it: cloud-server repair DIR"


def missing_parts(
    server_dir: ServerDirectory, channel: str, *, read: bool = False
) -> dict[str, list[str]]:
    """Return "checkpoints" and "store" -> sentences about what is missing.

    Args:
        server_dir: its server may run.
        channel: that this server trains and publishes for.
        read: whether files are also read, to find damaged ones.
    """
    checkpoints = []
    for one in [] if server_dir.is_relay else server_dir.lineages():
        of = f" of channel {one.lineage}" if one.lineage else ""
        if Checkpoints(one.checkpoints).newest() is None:
            checkpoints.append(f"no checkpoint{of} is left: nothing can be trained; {REBUILD}")
    return {"checkpoints": checkpoints, "store": _of_store(server_dir, channel, read=read)}


def _of_store(server_dir: ServerDirectory, channel: str, *, read: bool) -> list[str]:
    store = DirectoryStore(server_dir.store)
    try:
        offers = store.offers()
    except BundleError as error:
        return [str(error)]
    told = []
    if channel not in offers:
        told.append(f"nothing is published on channel {channel}: robots get no model; {REBUILD}")
    for name, (version, lineage) in offers.items():
        if lacking := store.lacking(version, lineage, read=read):
            told.append(
                f"version {version}, which channel {name} offers, lacks {', '.join(lacking)}: "
                f"robots cannot install it; {REBUILD}"
            )
    return told
