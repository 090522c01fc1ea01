"""What each role of TUF says here, made of keys, of what channels offer, and of the time.

  root       whose signatures count; a robot has its first one from the kit
  targets    who may say what a channel offers: `online`
  online     channel, or site on it -> the manifest that is offered, by length and sha256; the
             manifest names the files of the model by sha256
  snapshot   the versions of targets and online that belong together
  timestamp  the newest snapshot; soon out of date, so nobody can hold newer models back unnoticed

Only what channels offer now is in it: a thousand versions make it no longer. Version numbers count
up with each signature, and are at least the Unix time of it: a server that was restored from a
backup is then above whatever robots have seen. See docs/decisions/0027-signed-models.md.
"""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fleet_model.protocol.routes import (
    FALLBACK,
    NEXT,
    PLAN,
    STAGE,
    channel_and_site,
    part_of_rollout,
    site_offer,
    stored_target,
    target_of,
)

ONLINE = "online"
# Until when a signature counts. The server signs again when half of it has passed. A robot whose
# server was away for longer keeps its model, and goes on when there is a new signature.
LIFETIME = {
    "root": timedelta(days=365),
    "targets": timedelta(days=365),
    ONLINE: timedelta(days=90),
    "snapshot": timedelta(days=90),
    "timestamp": timedelta(days=1),
}
OFFLINE_LIFETIME = timedelta(days=365)  # of a channel that offline keys sign
TAKEN = {*LIFETIME}  # names of roles that no channel may have
Payload = TypeVar("Payload", Root, Targets, Snapshot, Timestamp)


def first_root(key: Key) -> Root:
    """Return a root by which one key signs everything."""
    root = Root(consistent_snapshot=True)
    for role in sorted(TOP_LEVEL_ROLE_NAMES):
        root.add_key(key, role)
    return root


def with_key(root: Root, old: str, new: Key) -> Root:
    """Return a root where another key takes the place of the one with the id `old`."""
    root = copy.deepcopy(root)
    for name, role in root.roles.items():
        if old in role.keyids:
            root.revoke_key(old, name)
            root.add_key(new, name)
    return root


def with_offline_keys(root: Root, roots: Sequence[Key], threshold: int, release: Key) -> Root:
    """Return a root that offline keys sign, as they sign who may sign what channels offer.

    The online key goes on with snapshot and timestamp.
    """
    root = copy.deepcopy(root)
    for name, keys in (("root", roots), ("targets", [release])):
        for keyid in list(root.roles[name].keyids):
            root.revoke_key(keyid, name)
        for key in keys:
            root.add_key(key, name)
    root.roles["root"].threshold = threshold
    return root


def with_online_key(root: Root, key: Key) -> Root:
    """Return a root by which the online key signs everything again."""
    root = copy.deepcopy(root)
    for name in ("root", "targets"):
        for keyid in list(root.roles[name].keyids):
            root.revoke_key(keyid, name)
        root.add_key(key, name)
    root.roles["root"].threshold = 1
    return root


def targets_for(key: Key, protected: Mapping[str, Key]) -> Targets:
    """Return who says what channels offer.

    Args:
        key: of all channels but those.
        protected: channel -> the offline key that signs for it. They come first and end a search:
            what the online key says of such a channel counts for nobody.
    """
    keys = {one.keyid: one for one in (key, *protected.values())}
    roles = {
        channel: _delegated(channel, one, _paths(channel))
        for channel, one in sorted(protected.items())
    }
    # How far a rollout is, the online key says for every channel.
    roles[ONLINE] = _delegated(ONLINE, key, [*_paths("*"), *_stages("*")])
    return Targets(delegations=Delegations(keys, roles))


def _stages(channel: str) -> list[str]:
    return [target_of(part_of_rollout(channel, STAGE))]


def _delegated(name: str, key: Key, paths: list[str]) -> DelegatedRole:
    return DelegatedRole(name, [key.keyid], threshold=1, terminating=True, paths=paths)


def _paths(channel: str) -> list[str]:
    """Return which names are a channel's; "*" stands for what has no slash."""
    rollout = (part_of_rollout(channel, part) for part in (PLAN, NEXT, FALLBACK))
    return [target_of(name) for name in (channel, site_offer(channel, "*"), *rollout)]


def lacks_only_paths(signed: Targets, wanted: Targets) -> bool:
    """Return whether two say the same, but for paths that a version before did not know.

    The release key signed them then, and is not here; it adds the paths when it signs again.
    """
    same = copy.deepcopy(wanted)
    theirs, ours = (one.delegations and one.delegations.roles for one in (signed, same))
    if not theirs or not ours or list(theirs) != list(ours):
        return False
    for name, role in ours.items():
        if not set(theirs[name].paths or ()) <= set(role.paths or ()):
            return False
        role.paths = theirs[name].paths
    return still_says(signed, same)


def channel_of(offer: str) -> str:
    """Return the channel of an offer."""
    return channel_and_site(offer)[0]


def signs_online(name: str, protected: Collection[str]) -> bool:
    """Return whether the online key signs what is offered under a name."""
    return channel_of(name) not in protected or name.endswith(f"/{STAGE}")


def protected_by(targets: Targets | None) -> dict[str, Key]:
    """Return channel -> the offline key that signs for it."""
    delegations = None if targets is None else targets.delegations
    if delegations is None or delegations.roles is None:
        return {}
    return {
        name: delegations.keys[role.keyids[0]]
        for name, role in delegations.roles.items()
        if name != ONLINE
    }


def offering(offers: Mapping[str, bytes]) -> Targets:
    """Return what channels and sites offer; `offers` are name -> manifest."""
    return Targets(targets=dict(map(_target, sorted(offers.items()))))


def with_changes(before: Targets, put: Mapping[str, bytes], dropped: Iterable[str]) -> Targets:
    """Return the same offers but for those that are `put` or `dropped`, by name."""
    gone = {target_of(name) for name in dropped}
    kept = {path: one for path, one in before.targets.items() if path not in gone}
    return Targets(targets=dict(sorted((kept | offering(put).targets).items())))


def snapshot_for(parts: Mapping[str, Targets], before: Metadata[Snapshot] | None) -> Snapshot:
    """Return which versions of roles belong together.

    What stood in it `before` stays, also of a role that is no more: no client takes a snapshot
    that names fewer.
    """
    meta = {f"{name}.json": MetaFile(one.version) for name, one in parts.items()}
    return Snapshot(meta={**(before.signed.meta if before else {}), **meta})


def timestamp_for(snapshot: Snapshot) -> Timestamp:
    """Return what names the newest snapshot."""
    return Timestamp(snapshot_meta=MetaFile(snapshot.version))


def numbered(wanted: Payload, version: int, role: str, now: datetime) -> Payload:
    """Return a payload that is to be signed now, in the place of `version` (0: none)."""
    wanted.version = version + 1
    if not isinstance(wanted, Root):  # roots are counted one by one
        wanted.version = max(wanted.version, int(now.timestamp()))
    wanted.expires = now.replace(microsecond=0) + lifetime(role)
    return wanted


def still_says(signed: Payload, wanted: Payload) -> bool:
    """Return whether two payloads differ in version and time at most."""
    same = copy.copy(wanted)
    same.version, same.expires = signed.version, signed.expires
    return same == signed


def is_fresh(signed: Root | Targets | Snapshot | Timestamp, role: str, now: datetime) -> bool:
    """Return whether more than half of its time is left."""
    return now < signed.expires - lifetime(role) / 2


def lifetime(role: str) -> timedelta:
    """Return how long a signature counts."""
    return LIFETIME.get(role, OFFLINE_LIFETIME)


def manifest_names(online: Iterable[Targets]) -> set[str]:
    """Return the files of manifests that these name, below targets/."""
    every = (target for one in online for target in one.targets.values())
    return {stored_target(target.path, target.hashes["sha256"]) for target in every}


def _target(offer: tuple[str, bytes]) -> tuple[str, TargetFile]:
    name, manifest = offer
    path = target_of(name)
    return path, TargetFile.from_data(path, manifest, ["sha256"])
