"""Take one published version out of a server's store, as a bundle folder that can be served."""

from pathlib import Path

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import MANIFEST, TRAINER, parse_manifest, read_bundle
from fleet_model.durable import making_folder
from fleet_model.errors import BundleError, SettingsError


def export_bundle(server_dir: ServerDirectory, version: int | None, folder: Path) -> int:
    """Write what robots install of a published version; return the version.

    Args:
        server_dir: with the lineage that is meant.
        version: a published one; None takes the newest.
        folder: a new one; it is there only once it is whole. It holds manifest.json, every file
            that the manifest names, and trainer.json.

    Raises:
        SettingsError: the folder is there already, or cannot be made there.
        BundleError: there is no such version, or the store lacks files of it.
    """
    if folder.exists() or folder.is_symlink():
        raise SettingsError(f"--out {folder}: is there already; name a new folder")
    if not folder.absolute().parent.is_dir():
        raise SettingsError(f"--out {folder}: the folder that it would be in is not there")
    store, lineage = DirectoryStore(server_dir.store), server_dir.lineage
    published = store.published(lineage)
    if version is None:
        if not published:
            raise BundleError("no version is published; `cloud-server models list DIR` shows them")
        version = published[-1]
    content = store.require(version, lineage)
    manifest = parse_manifest(content)
    aside = folder.absolute().with_name(f".{folder.name}.new")
    with making_folder(folder.absolute(), aside):
        for name, entry in {**manifest.files, TRAINER: manifest.trainer}.items():
            store.fetch(entry.sha256, entry.size_bytes, aside / name)
        (aside / MANIFEST).write_bytes(content)  # as published: a signature covers its bytes
        read_bundle(aside, manifest.files)
    return version
