"""Make a server directory of a backup, on this machine or another one.

The server may have gone on after the backup was made, and then robots have seen version numbers
that the backup does not know. Not one of them may be given again, to another model. So a restored
directory goes on far above: what robots get and what the next run begins with are kept once more,
under numbers that no server can have reached since then, and what is trained next has the numbers
behind them. An open round begins again there: its questions and replies are not in a backup.
See docs/decisions/0025-backup.md.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import BinaryIO

from cloud_server.backup.archive import Archive, Contents
from cloud_server.backup.backup import Progress, require_room, telling
from cloud_server.models.release_log import BY_RESTORE, ReleaseLog
from cloud_server.rollback import give_again
from cloud_server.runs.run_rounds import remember
from cloud_server.signing.signing import sign_again, signed_store
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory, vacant
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles
from fleet_model.durable import making_folder
from fleet_model.errors import BundleError, CheckpointError, SettingsError
from fleet_model.protocol.routes import FALLBACK, NEXT, part_of_rollout

# A round takes a second or more: robots poll, train and send. And clocks of machines differ.
NUMBERS_PER_S, NUMBERS_AT_LEAST, NUMBERS_UNIT = 10, 1000, 1000
CLOCK_S = 60.0


@dataclass(frozen=True, slots=True)
class Restored:
    """What was made."""

    contents: Contents
    numbers: Mapping[str, tuple[int, int]]  # lineage -> highest in the backup, first one used now
    warnings: Sequence[str]


def restore(stream: BinaryIO, name: str, root: Path, now: datetime, progress: Progress) -> Restored:
    """Make `root` of a backup in one step: when all hashes are right it gets its name.

    Args:
        stream: the backup; read once.
        name: of it, for messages.
        root: a new or empty directory.
        now: UTC.
        progress: is told how far it is.

    Raises:
        SettingsError: `root` has content, or this machine's clock is wrong.
        BundleError: the backup is damaged, cut, or none; nothing is left behind.
        StorageError: too little room.
        OSError: a file cannot be written.
    """
    root = vacant(root)
    archive = Archive(stream, name)
    contents = archive.contents
    since_s = (now - contents.created_at).total_seconds()
    if since_s < -CLOCK_S:
        raise SettingsError(
            f"{name} was made at {contents.created_at:%Y-%m-%d %H:%M} UTC, and here it is "
            f"{now:%Y-%m-%d %H:%M} UTC: set the clock of this machine, for version numbers depend "
            "on it"
        )
    require_room(next(one for one in root.parents if one.is_dir()), contents.size_bytes)
    aside = root.with_name(f".{root.name}.restore")
    with making_folder(root, aside):
        _unpack(archive, aside, progress)
        server_dir, numbers, warnings = ServerDirectory(aside), {}, list[str]()
        if not server_dir.settings.is_file():
            raise BundleError(f"{name}: holds no server.toml: it is not of a server directory")
        _end_rollouts(server_dir, warnings)
        for one in server_dir.lineages():
            numbers[one.lineage] = _go_on_above(one, since_s, warnings)
        try:
            sign_again(server_dir, now)
        except (BundleError, SettingsError) as error:
            warnings.append(f"models are not signed, robots that verify keep theirs: {error}")
    return Restored(contents, numbers, [one.replace(str(aside), str(root)) for one in warnings])


def _end_rollouts(server_dir: ServerDirectory, warnings: list[str]) -> None:
    """Leave rollouts behind that the server signs: what they name gets other numbers here.

    Where offline keys have signed the plan, it goes on as it was.
    """
    store, files = DirectoryStore(server_dir.store), RolloutFiles(server_dir.store)
    try:
        protected = signed_store(server_dir).protected()
        rollouts = {c: one for c, one in files.all().items() if c not in protected and not one.over}
    except (BundleError, SettingsError) as error:
        warnings.append(f"rollouts stay as they are: {error}")
        return
    for channel, rollout in rollouts.items():
        for part in (NEXT, FALLBACK):
            with suppress(FileNotFoundError):
                store.withdraw(part_of_rollout(channel, part))
        files.remove(channel)
        version = rollout.plan.next.version
        warnings.append(
            f"the rollout of version {version} on channel {channel} is ended, its robots get what "
            "the channel offers; `cloud-server models promote DIR VERSION --groups 10%,100%` "
            "begins another one"
        )


def _unpack(archive: Archive, folder: Path, progress: Progress) -> None:
    """Write every file of the list, in folders and with rights as `init` makes them."""
    tell, done = telling(progress, "restoring", archive.contents.size_bytes), 0
    for name, entry in archive.contents.files.items():
        path = folder / name
        mode = 0o600 if entry.private or path.parent == ServerDirectory(folder).secrets else 0o644
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except (FileExistsError, NotADirectoryError):
            raise BundleError(f"{name}: is a file and a folder in its list") from None
        with os.fdopen(descriptor, "wb") as file:
            archive.read(name, file)
        tell(done := done + entry.size_bytes)
    archive.require_end()
    if (secrets := ServerDirectory(folder).secrets).is_dir():
        secrets.chmod(0o700)


def _go_on_above(
    server_dir: ServerDirectory, since_s: float, warnings: list[str]
) -> tuple[int, int]:
    """Give what robots get, and what the next run begins with, numbers that were never used.

    Returns:
        The highest number that the backup knows, and the first one that is used now.
    """
    checkpoints, releases = Checkpoints(server_dir.checkpoints), ReleaseLog(server_dir.releases)
    store, known, saved = (
        DirectoryStore(server_dir.store),
        releases.by_version(),
        checkpoints.saved(),
    )
    used = max([*saved, *store.published(server_dir.lineage), *known], default=0)
    first = number = number_above(used, since_s)
    if not saved:
        warnings.append(f"{server_dir.lineage or 'the directory'} has no checkpoint")
        return used, first
    newest = saved[-1]
    if (record := checkpoints.record(newest)) is not None:
        remember(server_dir, record)  # as the next round would have done
    offers, given = dict[str, int](), set[int]()
    try:
        offers = {c: v for c, (v, of) in store.offers().items() if of == server_dir.lineage}
    except BundleError as error:
        warnings.append(f"channels offer what they did: {error}")
    for version in sorted(set(offers.values())):
        try:
            give_again(server_dir, version, number, BY_RESTORE)
            for channel in (channel for channel, one in offers.items() if one == version):
                store.offer(channel, number, server_dir.lineage)
            given.add(version)
        except (BundleError, CheckpointError) as error:
            warnings.append(f"version {version} keeps its number: {error}")
        number += 1
    # What the gate withholds is left behind here, too: a run begins with what robots run.
    if newest in given or (given and newest in known and known[newest].left_behind):
        return used, first
    for version in reversed(saved):
        try:
            checkpoints.copy(version, number)
        except CheckpointError as error:
            warnings.append(f"{error}; so the one before is taken")
            continue
        releases.add(number, "returned", BY_RESTORE, of=version)
        break
    return used, first


def number_above(used: int, since_s: float) -> int:
    """Return a number that a server cannot have reached in so many seconds; a round one."""
    least = used + NUMBERS_AT_LEAST + ceil(max(since_s, 0) * NUMBERS_PER_S)
    return -(-least // NUMBERS_UNIT) * NUMBERS_UNIT
