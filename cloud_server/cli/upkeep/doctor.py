"""Look at everything that a server directory needs before it fails: `cloud-server doctor`."""

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cloud_server.cli.admin_client import AdminClient
from cloud_server.robots.register import Register
from cloud_server.runs.schedule import ScheduleFile
from cloud_server.server import require_sound
from cloud_server.signing.signing import signed_store
from cloud_server.state.certificates import read_certificates
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.clock import is_synchronized
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import address_of, faults_of_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.parts import missing_parts
from cloud_server.state.settings import ServerSettings, load_settings, url_host
from fleet_model.command_line.app import Finding, State
from fleet_model.errors import FleetError, SettingsError

RENEW_BEFORE = timedelta(days=30)
CA_RENEW_BEFORE = timedelta(days=365)  # every robot needs the new kit then: begin in time
REPAIR = "cloud-server repair DIR"
CORRECT = "correct server.toml or the variable"
SPARE_BYTES = 200 << 20  # for logs, Flower's state, an export


def examine(server_dir: ServerDirectory, now: datetime) -> list[Finding]:
    """Look at everything; nothing is changed. Raises SettingsError if this is no server directory.

    Args:
        server_dir: the directory; its server may run.
        now: UTC.
    """
    server_dir.require()
    try:
        settings = load_settings(server_dir.settings)
    except SettingsError as error:
        wrong = Finding("settings", "fail", str(error), CORRECT)
        return [wrong, *_secrets(server_dir), *_clock(server_dir, now)]
    try:
        require_sound(server_dir, settings)
        found = [Finding("settings", "ok", f"{server_dir.settings} is readable")]
        if settings.moved:
            found = [Finding("settings", "warn", settings.moved, "correct server.toml")]
    except SettingsError as error:
        found = [Finding("settings", "fail", str(error), CORRECT)]
    server_dir = server_dir.of(settings.publish.channel)
    for look in _LOOKS:
        found += _guarded(look, server_dir, settings, now)
    return found


def _guarded(
    look: "_Look", server_dir: ServerDirectory, settings: ServerSettings, now: datetime
) -> list[Finding]:
    """A damaged file must not keep the others from being looked at."""
    subject = look.__name__.strip("_")
    try:
        return list(look(server_dir, settings, now))
    except PermissionError as error:
        step = f"run it as the user of the server: sudo -u '#{server_dir.root.stat().st_uid}' ..."
        return [Finding(subject, "fail", f"{error.filename}: {error.strerror}", step)]
    except OSError as error:
        text = f"{error.filename or server_dir.root}: {error.strerror}"
        return [Finding(subject, "fail", text, "mend the disk, or restore the file from a backup")]
    except (FleetError, ValueError, KeyError) as error:
        return [Finding(subject, "fail", str(error), "restore the file from a backup")]


def _secrets(server_dir: ServerDirectory, *_: object) -> Iterator[Finding]:
    wrong = []
    for path in (server_dir.secrets, server_dir.flower, *sorted(server_dir.secrets.glob("*"))):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            least = "0700" if path.is_dir() else "0600"
            wrong.append(f"chmod {least} {path}  # is {mode:04o}: others can read it")
        if status.st_uid not in (os.geteuid(), 0):
            wrong.append(f"chown {os.geteuid()} {path}  # belongs to user {status.st_uid}")
    missing = [
        name for name in ("ca.key", "server.key", "admin.token")
        if not (server_dir.secrets / name).exists()
    ]  # fmt: skip
    if missing:
        text = f"secrets/{', secrets/'.join(missing)} missing"
        yield Finding("secrets", "fail", text, "restore secrets/ from a backup")
    if wrong:
        yield Finding(
            "secrets", "fail", "others on this machine may read secrets", "\n".join(wrong)
        )
    if not wrong and not missing:
        yield Finding("secrets", "ok", "only this user reads them")


def _certificates(
    server_dir: ServerDirectory, settings: ServerSettings, now: datetime
) -> Iterator[Finding]:
    found = read_certificates(server_dir)
    renew = f"cloud-server renew-certificate {server_dir.root}, then restart the server"
    yield _expiry("server certificate", found.server_until, now, RENEW_BEFORE, renew)
    again = (
        "cloud-server init in a new directory, then `edge-agent enroll` every robot with its kit"
    )
    yield _expiry("certificate authority", found.ca_until, now, CA_RENEW_BEFORE, again)
    if not found.fits:
        yield Finding(
            "server certificate", "fail", "server.crt, server.key, ca.crt do not fit", renew
        )
    absent = [name for name in settings.network.names if name not in found.names]
    if absent:
        text = f"network.names has {', '.join(absent)}, the certificate does not"
        yield Finding("server certificate", "warn", text, renew)


def _expiry(subject: str, until: datetime, now: datetime, early: timedelta, step: str) -> Finding:
    days = (until - now) // timedelta(days=1)
    if until <= now:
        return Finding(subject, "fail", f"ended on {until:%Y-%m-%d}: robots refuse it", step)
    state: State = "ok" if until - now > early else "warn"
    text = f"ends on {until:%Y-%m-%d}, in {days} days"
    return Finding(subject, state, text, "" if state == "ok" else step)


def _clock(server_dir: ServerDirectory, *rest: object) -> Iterator[Finding]:
    now = rest[-1]
    assert isinstance(now, datetime)
    set_it = "set the clock: `timedatectl set-ntp true`, or start chrony"
    written = (server_dir.settings, server_dir.history, server_dir.robots)
    newest = max((path.stat().st_mtime for path in written if path.exists()), default=0.0)
    if now.timestamp() < newest - 60:
        text = f"{now:%Y-%m-%d %H:%M} UTC is before files of this directory were written"
        yield Finding("clock", "fail", text, set_it)
        return
    synchronized = is_synchronized()
    if synchronized is False:
        text = "not synchronized; robots more than 5 s ahead or 300 s behind are refused"
        yield Finding("clock", "warn", text, set_it)
    else:
        how = "synchronized" if synchronized else "plausible; this system does not tell more"
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M} UTC, {how}")


def _register(server_dir: ServerDirectory, *_: object) -> Iterator[Finding]:
    robots = Register(server_dir.robots).robots()
    approved = sum(robot.state == "approved" for robot in robots)
    if approved:
        yield Finding("register", "ok", f"{approved} of {len(robots)} robots are approved")
    else:
        add = f"cloud-server robots add {server_dir.root} NAME --site SITE --key robot.pub"
        yield Finding("register", "warn", f"{len(robots)} robots, none is approved", add)


def _move(server_dir: ServerDirectory, settings: ServerSettings, _: datetime) -> Iterator[Finding]:
    moves_to, network = settings.network.moves_to, settings.network
    if moves_to is None:
        return
    host = moves_to.rpartition(":")[0]
    if moves_to == address_of(network):
        done = "remove network.moves_to from server.toml when all robots have followed"
        yield Finding("address", "ok", f"moved to {moves_to}; {done}")
    elif host not in map(url_host, network.names):
        text = f"network.moves_to is {moves_to}, which the certificate does not name"
        step = f'add "{host}" to network.names, then `cloud-server renew-certificate DIR`'
        yield Finding("address", "fail", text, step)
    else:
        yield Finding("address", "ok", f"robots are told that the server moves to {moves_to}")


def _kit(server_dir: ServerDirectory, settings: ServerSettings, _: datetime) -> Iterator[Finding]:
    for fault in faults_of_kit(server_dir, settings):
        yield Finding("kit", "fail", fault, REPAIR)


def _store(server_dir: ServerDirectory, settings: ServerSettings, _: datetime) -> Iterator[Finding]:
    store, channel = DirectoryStore(server_dir.store), settings.publish.channel
    missing = missing_parts(server_dir, channel, read=True)["store"]
    for text in missing:
        yield Finding("store", "fail", text.partition("; rebuild")[0], REPAIR)
    offered = set(store.offers().values())
    damaged = [
        str(version)
        for lineage in store.lineages()
        for version in store.published(lineage)
        if (version, lineage) not in offered and store.lacking(version, lineage, read=True)
    ]
    if damaged:
        text = f"versions {', '.join(damaged)} lack files: robots that have them cannot mend theirs"
        yield Finding("store", "warn", text, REPAIR)
    elif not missing:
        yield Finding("store", "ok", "every published version is whole")


def _signing(server_dir: ServerDirectory, *_: object) -> Iterator[Finding]:
    try:
        signed_store(server_dir).require_key()
        yield Finding("signatures", "ok", "the server can sign what channels offer")
    except SettingsError as error:
        text, step = str(error).split("; ", 1)
        yield Finding("signatures", "fail", text, step)


def _checkpoints(server_dir: ServerDirectory, *_: object) -> Iterator[Finding]:
    if server_dir.is_relay:
        yield Finding("checkpoints", "ok", "a site relay has none: the fleet's server keeps them")
        return
    for one in server_dir.lineages():
        if Checkpoints(one.checkpoints).newest() is None:
            text = f"{one.checkpoints} has no checkpoint: nothing can be trained"
            restore = f"restore the folder from a backup, or begin again: {REPAIR} --start-again"
            yield Finding("checkpoints", "fail", text, restore)
            continue
        newest = Checkpoints(one.checkpoints).latest()
        of = f" of channel {one.lineage}" if one.lineage else ""
        yield Finding("checkpoints", "ok", f"the newest{of}, version {newest.version}, is whole")


def _disk(server_dir: ServerDirectory, settings: ServerSettings, _: datetime) -> Iterator[Finding]:
    checkpoints = Checkpoints(server_dir.checkpoints)
    if checkpoints.newest() is None:
        return  # told already
    newest = checkpoints.path(checkpoints.latest().version).parent
    one = sum(file.stat().st_size for file in newest.iterdir())
    robots = len(Register(server_dir.robots).robots())
    asked = min(settings.rounds.target or robots, robots)
    # One round: Flower holds what is asked and every reply, the journal holds the replies again.
    needed = (3 + 2 * asked) * one + SPARE_BYTES
    free = shutil.disk_usage(server_dir.root).free
    text = f"{free >> 20} MB free, the next round takes up to {needed >> 20} MB"
    if free >= 2 * needed:
        yield Finding("disk", "ok", text)
    else:
        state: State = "warn" if free >= needed else "fail"
        yield Finding("disk", state, text, _make_room(server_dir))


def _make_room(server_dir: ServerDirectory) -> str:
    """Return what makes room in the parts of the directory that take most, the largest first."""
    steps = {
        server_dir.checkpoints: "lower rounds.keep_checkpoints",
        server_dir.store: "lower publish.keep_versions, or `cloud-server models unpin DIR VERSION`",
        server_dir.history: "stop the server and move the file away: status counts from 0 again",
        server_dir.tensorboard: "remove it: it is drawn again from the history",
        server_dir.flower: "lower rounds.target: fewer robots are asked at once",
    }
    sizes = {path: _size_bytes(path) for path in steps}
    largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
    return "free space on the disk, or:\n" + "\n".join(
        f"{path.name} ({sizes[path] >> 20} MB): {steps[path]}" for path in largest
    )


def _size_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    total = 0
    for file in files:
        with suppress(FileNotFoundError):  # the server has just pruned it
            total += file.lstat().st_size
    return total


def _port(server_dir: ServerDirectory, settings: ServerSettings, _: datetime) -> Iterator[Finding]:
    at = f"{settings.network.host}:{settings.network.port}"
    try:
        with server_dir.locked("start"):
            running = False
    except SettingsError:
        running = True
    if running:
        try:
            AdminClient(server_dir).status()
            yield Finding("port", "ok", f"the server answers at {at}")
        except FleetError as error:
            yield Finding("port", "fail", str(error), "look at the server's log; restart it")
        return
    try:
        _bind(settings.network.host, settings.network.port)
    except OSError as error:
        step = f"find who has it: ss -ltnp 'sport = :{settings.network.port}'; or change [network]"
        yield Finding("port", "fail", f"cannot listen on {at} ({error.strerror})", step)
    else:
        yield Finding("port", "ok", f"{at} is free; the server does not run")


def _bind(host: str, port: int) -> None:
    (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _schedule(server_dir: ServerDirectory, *_: object) -> Iterator[Finding]:
    schedule = ScheduleFile(server_dir.schedule).load()
    words = (
        "none; runs begin with `cloud-server train DIR`"
        if schedule is None
        else schedule.in_words()
    )
    yield Finding("schedule", "ok", words)


_Look: TypeAlias = Callable[[ServerDirectory, ServerSettings, datetime], Iterator[Finding]]
_LOOKS: tuple[_Look, ...] = (
    _secrets, _certificates, _clock, _register, _checkpoints, _store, _signing, _kit, _move, _disk,
    _port, _schedule,
)  # fmt: skip
