"""Which key signed which version, and when: lines of releases.jsonl, beside what became of it.

They follow from what is signed: whoever signs calls `record` afterwards, and what a kill has left
out is there after the next signing. Versions of this program that know no such line skip it.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_server.signing.files import SignedFiles
from cloud_server.signing.keys import SHOWN
from cloud_server.signing.roles import channel_of
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import all_lines, append_line
from cloud_server.state.model_store import DirectoryStore


class Signature(BaseModel):
    """One line: from when on robots on a channel were to take a version."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: Literal["signed"] = "signed"
    version: int
    channel: str  # or a site's part of it, as stable/sites/hall-1
    role: str  # of TUF, that names it
    key: str  # the start of its id, as `cloud-server keys status` shows it
    at: float  # Unix time

    @property
    def words(self) -> str:
        """Return it in words."""
        when = datetime.fromtimestamp(self.at, timezone.utc)
        return f"{self.channel} by key {self.key} (role {self.role}), {when:%Y-%m-%d %H:%M} UTC"


def signatures(server_dir: ServerDirectory) -> Mapping[int, list[Signature]]:
    """Return version -> its signatures, oldest first, of this lineage."""
    found: dict[int, list[Signature]] = {}
    for one in _lines(server_dir):
        found.setdefault(one.version, []).append(one)
    return found


def _lines(server_dir: ServerDirectory) -> Iterator[Signature]:
    for line in all_lines(server_dir.releases):
        if b'"signed"' in line.content:
            with suppress(ValidationError):
                yield Signature.model_validate_json(line.content)


def record(server_dir: ServerDirectory, files: SignedFiles, now: datetime) -> None:
    """Keep who signed what channels offer now, unless it is known."""
    with files.changing():
        for lineage, wanted in _now(server_dir, files, now):
            home = ServerDirectory(server_dir.root, lineage)
            known = [one for one in _lines(home) if one.channel == wanted.channel][-1:]
            if not known or known[0] != wanted.model_copy(update={"at": known[0].at}):
                append_line(home.releases, json.dumps(wanted.model_dump()).encode())


def _now(
    server_dir: ServerDirectory, files: SignedFiles, now: datetime
) -> Iterator[tuple[str, Signature]]:
    """Yield lineage and signature of each target that is signed now."""
    current = files.current()
    targets = current.get("targets")
    delegations = None if targets is None else targets.signed.delegations
    offers = DirectoryStore(server_dir.store).offers()
    for role, delegated in (delegations.roles or {}).items() if delegations else ():
        if role not in current:
            continue
        keys = [one for one in delegated.keyids if one in current[role].signatures]
        # Numbers are at least the time of their signature; what was signed before this line
        # existed has its own time by that.
        at = min(float(current[role].signed.version), now.timestamp())
        for name, version in files.offers_of(current[role].signed).items():
            if keys and version is not None:
                lineage = offers.get(name, offers.get(channel_of(name), (0, "")))[1]
                yield (
                    lineage,
                    Signature(version=version, channel=name, role=role, key=keys[0][:SHOWN], at=at),
                )
