"""What is known of every version: who made it, what robots measured, who signed it, who gets it."""

from collections.abc import Mapping, Sequence
from typing import Any

from cloud_server.models.release_log import Release, ReleaseLog
from cloud_server.signing.signed_by import Signature, signatures
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import BundleError
from fleet_model.protocol.routes import channel_and_site


def versions_json(server_dir: ServerDirectory) -> dict[str, Any]:
    """Return the published versions of all lineages and those withheld, as `models list --json`.

    Raises:
        BundleError: the store is damaged.
    """
    store = DirectoryStore(server_dir.store)
    known = {name: releases_of(server_dir, name) for name in store.lineages()}
    values = []
    for name in store.lineages():
        signed = signed_of(server_dir, name)
        for manifest in store.versions(name):
            release = known[name].get(manifest.version)
            told = {} if release is None else {"release": release.model_dump()}
            by = [one.model_dump() for one in signed.get(manifest.version, ())]
            about = manifest.model_dump(mode="json")
            values.append(about | _lineage_json(name) | told | {"signatures": by})
    return {
        "channels": store.channels(),
        "assigned": {n: v for n, (v, _) in store.offers().items() if channel_and_site(n)[1]},
        "pins": sorted(store.pins()),
        "versions": values,
        "withheld": [
            release.model_dump() | _lineage_json(name)
            for name, releases in known.items()
            for release in releases.values()
            if release.kind == "withheld"
        ],
    }


def version_json(server_dir: ServerDirectory, version: int) -> dict[str, Any]:
    """Return where a version comes from: its release, its round, its files.

    Args:
        server_dir: of the lineage.
        version: published or withheld, or of a checkpoint.

    Raises:
        BundleError: there is no such version, or the store is damaged.
    """
    lineage = server_dir.lineage
    release = releases_of(server_dir, lineage).get(version)
    checkpoints = Checkpoints(server_dir.checkpoints)
    manifests = {one.version: one for one in DirectoryStore(server_dir.store).versions(lineage)}
    manifest = manifests.get(version)
    if manifest is None and release is None and version not in checkpoints.saved():
        raise BundleError(
            f"there is no version {version}; `cloud-server models list DIR` shows those that there "
            "are"
        )
    root = version if release is None else release.root
    record = checkpoints.record(root) if root in checkpoints.saved() else None
    robots = () if record is None else [robot for robot in record.robots if robot.accepted]
    signed = signed_of(server_dir, lineage).get(version, ())
    return {
        "version": version,
        "state": "not published" if release is None and manifest is None else state_of(release),
        "by": "" if release is None else release.by,
        "weights_of_version": root,
        "run": None if record is None else record.run,
        "round": None if record is None else record.round,
        "robots": [robot.name for robot in robots],
        "training_examples": sum(robot.num_examples for robot in robots),
        "held_out_examples": 0 if release is None else release.examples,
        "before": {} if release is None else release.before,
        "after": {} if release is None else release.after,
        "reasons": [] if release is None else [one.words for one in release.reasons],
        "warnings": [] if release is None else [one.words for one in release.warnings],
        "signed": [one.words for one in signed],
        "created_at": None if manifest is None else manifest.created_at,
        "classes": [] if manifest is None else list(manifest.described_task.classes),
        "files": {} if manifest is None else {n: e.sha256 for n, e in manifest.files.items()},
    }


def releases_of(server_dir: ServerDirectory, lineage: str) -> Mapping[int, Release]:
    """Return version -> what became of it last."""
    return ReleaseLog(ServerDirectory(server_dir.root, lineage).releases).by_version()


def signed_of(server_dir: ServerDirectory, lineage: str) -> Mapping[int, list[Signature]]:
    """Return version -> who signed it for which channel."""
    return signatures(ServerDirectory(server_dir.root, lineage))


def signed_by(signed: Sequence[Signature]) -> str:
    """Return the keys, the last one of each channel, in few words."""
    newest = {one.channel: one for one in signed}
    return ", ".join(dict.fromkeys(f"{one.key} ({one.role})" for one in newest.values()))


def state_of(release: Release | None) -> str:
    """Return what became of a version in two words at most."""
    return "published" if release is None else release.kind.replace("_", " ")


def published_by(release: Release | None) -> str:
    """Return the run or the command, and whose weights they are."""
    if release is None:
        return ""
    return release.by if release.of is None else f"{release.by} of {release.of}"


def measured(release: Release | None) -> str:
    """Return the scores of what robots ran, and of the version, and on how many examples."""
    if release is None or not release.after:
        return ""
    scores = ", ".join(
        f"{name} {release.before[name]:.3f} -> {value:.3f}"
        for name, value in release.after.items()
        if name in release.before
    )
    return f"{scores} of {release.examples} examples"


def _lineage_json(lineage: str) -> dict[str, Any]:
    return {"lineage": lineage} if lineage else {}
