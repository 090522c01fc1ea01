"""Commands that put a server directory into one file, and make it again of that."""

import json
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cloud_server.cli.terminal import Directory, Json, console, with_given_directory, with_steps
from fleet_model.errors import SettingsError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_server.backup.restore import Restored
    from cloud_server.state.settings import ServerSettings

STREAM = Path("-")
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="the backup; - is a pipe")]


def backup(directory: Directory, file: BackupFile, json_output: Json = False) -> None:
    """Write a backup of DIR, whose server may run, into one file: keep it as secret as the keys.

    Left out: open questions to robots, the open round, locks, what is made again.
    """
    from cloud_server.backup.backup import back_up
    from cloud_server.state.directory import ServerDirectory
    from fleet_model.protocol.proof import utc_now

    target: Path | BinaryIO = file
    if file == STREAM:
        if json_output:
            raise SettingsError("--json prints to stdout, where - writes the backup: name a file")
        if sys.stdout.isatty():
            raise SettingsError("- writes the backup to stdout, a terminal: name a file, or a pipe")
        target = sys.stdout.buffer
    with with_steps("backup") as tell:
        made = back_up(ServerDirectory(directory), target, utc_now(), tell)
    contents = made.contents
    if json_output:
        about = contents.model_dump(mode="json", exclude={"files"})
        more = {"files": len(contents.files), "bytes": contents.size_bytes}
        typer.echo(json.dumps({**about, **more, "left_out": list(made.strange)}))
        return
    for name in made.strange:
        _say(f"WARNING: {one_line(name)} is left out: it is neither a file nor a folder")
    _say(
        f"{file}: {len(contents.files)} files, {contents.size_bytes / 1e6:.1f} MB, "
        f"{_versions(contents.versions)}; it holds the private keys: keep it as secret as those"
    )
    if file != STREAM:
        _say(f"to use it: cloud-server restore {shlex.quote(str(file))} NEW_DIR")


def restore(file: BackupFile, directory: Directory, json_output: Json = False) -> None:
    """Make the new directory DIR of a backup; version numbers go on far above all earlier ones."""
    from cloud_server.backup.restore import restore as make
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import load_settings
    from fleet_model.protocol.proof import utc_now

    name = "the backup" if file == STREAM else str(file)
    with _reading(file) as stream, with_steps("restore") as tell:
        made = make(stream, name, directory, utc_now(), tell)
    if json_output:
        typer.echo(json.dumps(_as_json(made)))
        return
    for warning in made.warnings:
        _say(f"WARNING: {warning}")
    for line in _told(directory, made):
        _say(line)
    for line in _next(load_settings(ServerDirectory(directory).settings)):
        _say(with_given_directory(line))


@contextmanager
def _reading(file: Path) -> "Iterator[BinaryIO]":
    if file == STREAM:
        yield sys.stdin.buffer
        return
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        raise SettingsError(f"{file}: there is no such file") from None
    with stream:
        yield stream


def _as_json(made: "Restored") -> dict[str, Any]:
    numbers = {name: {"newest": old, "from": new} for name, (old, new) in made.numbers.items()}
    about = made.contents.model_dump(mode="json", exclude={"files", "versions"})
    return {**about, "numbers": numbers, "warnings": list(made.warnings)}


def _told(directory: Path, made: "Restored") -> "Iterator[str]":
    contents = made.contents
    yield (
        f"ready: {directory}, as {contents.directory} was at {contents.created_at:%Y-%m-%d %H:%M} "
        "UTC. What came later is not in it: robots admitted or revoked, tokens used, rounds closed"
    )
    for lineage, (used, number) in made.numbers.items():
        of = f" of channel {lineage}" if lineage else ""
        yield (
            f"versions{of} go on with {number}, by which robots get their model again; "
            f"{used + 1} to {number - 1} are never used, since robots may have seen some of them"
        )


def _next(settings: "ServerSettings") -> "Iterator[str]":
    """Say what is to be done until robots are here, with the names that they use."""
    from cloud_server.state.kit import address_of

    address = address_of(settings.network)
    yield "next: stop the old server for good, if it lives: two of them would both lead the robots"
    yield "      cloud-server doctor DIR; then cloud-server start DIR"
    yield f"robots come by themselves where {address} leads to this machine"
    yield (
        "else: add this machine's name to network.names in server.toml, cloud-server "
        "renew-certificate DIR, cloud-server repair DIR, and set server.address in agent.toml on "
        "each robot; robots that were told of network.moves_to try that address, too"
    )


def _versions(newest: dict[str, int]) -> str:
    told = (f"version {v}" + (f" of channel {name}" if name else "") for name, v in newest.items())
    return ", ".join(told) or "no checkpoint"


def _say(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)
