"""What the open round must not lose: who was asked, and every reply that was taken.

A journal belongs to one run. `write` and `keep` return when a power cut can no longer undo them;
all that the round loop does follows from what it reads here, so a killed server goes on where it
was.
"""

import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from cloud_server.rounds.fleet import Participant
from cloud_server.rounds.reply_spool import Kept, ReplySpool
from cloud_server.state.round_record import Mode
from fleet_model.durable import make_directory, write_durably
from fleet_model.errors import StorageError
from fleet_model.types import Tensor, Update

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One question to one robot that has not been answered."""

    id: str
    robot: Participant
    round: int  # in which it was asked
    version: int  # of the checkpoint that it was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRound:
    """A round between its first question and its checkpoint."""

    run: str
    round: int
    base_version: int
    mode: Mode
    robots: tuple[Participant, ...] = ()  # to be asked in this round, whether done or not
    tickets: tuple[Ticket, ...] = ()  # unanswered, also of earlier rounds
    closed: bool = False  # it has its checkpoint, or failed: only the tickets live on
    attempt: int = 0  # how often it has failed before
    personal: tuple[str, ...] = ()  # tensors that no reply of it has

    @property
    def key(self) -> tuple[str, int, int, tuple[str, ...]]:
        """Return what names the round: the same number from another checkpoint is another one.

        With other tensors that stay on the robots its replies cannot be folded together, either.
        """
        return self.run, self.round, self.base_version, self.personal


class RoundJournal(Protocol):
    """Keep one open round."""

    def load(self) -> OpenRound | None:
        """Return what was written last."""
        ...

    def kept(self) -> Sequence[Kept]:
        """Return the replies of that round in the order they were kept."""
        ...

    def write(self, open_round: OpenRound) -> None:
        """Replace what is known of the round; a new round drops the replies of the one before."""
        ...

    def keep(self, replies: Sequence[tuple[Kept, Update | None]]) -> None:
        """Keep replies of the open round; a process killed in here has kept the first ones."""
        ...

    def read(self, kept: Kept) -> Update:
        """Return the update of one kept reply, bit for bit."""
        ...

    def numbers(self, kept: Kept, name: str, start: int, stop: int) -> Tensor:
        """Return elements start to stop of one of its tensors, in C order: float32, shape (n,)."""
        ...

    def close(self, round: int) -> None:
        """Drop the round's replies, keep its unanswered tickets; nothing if it is not open.

        To be called when the round's checkpoint is durable.
        """
        ...


class MemoryJournal:
    """For virtual robots and tests: ends with the process, and holds every update."""

    def __init__(self) -> None:
        self._open: OpenRound | None = None
        self._kept: dict[str, Kept] = {}
        self._updates: dict[str, Update] = {}

    def load(self) -> OpenRound | None:
        """As RoundJournal says; so are the others."""
        return self._open

    def kept(self) -> Sequence[Kept]:  # noqa: D102
        return tuple(self._kept.values())

    def write(self, open_round: OpenRound) -> None:  # noqa: D102
        if _is_new(open_round, self._open):
            self._forget()
        self._open = open_round

    def keep(self, replies: Sequence[tuple[Kept, Update | None]]) -> None:  # noqa: D102
        for kept, update in replies:
            self._kept[kept.ticket] = kept
            if update is not None:
                self._updates[kept.ticket] = update

    def read(self, kept: Kept) -> Update:  # noqa: D102
        return self._updates[kept.ticket]

    def numbers(self, kept: Kept, name: str, start: int, stop: int) -> Tensor:  # noqa: D102
        return self._updates[kept.ticket].weights[name].reshape(-1)[start:stop]

    def close(self, round: int) -> None:  # noqa: D102
        if self._open is not None and self._open.round == round:
            self._open = _closed(self._open, self._kept)
            self._forget()

    def _forget(self) -> None:
        self._kept, self._updates = {}, {}


def _kept_at_home(open_round: OpenRound) -> str:
    """Return what tells replies apart that lack other tensors; "" where they have all."""
    names = "\n".join(open_round.personal)
    return f"-{zlib.crc32(names.encode()):08x}" if names else ""


class DiskJournal:
    """<directory>/round.json, and beside it a file with the replies of the open round.

    Raises StorageError where the disk is full or fails; what was kept before stays.
    """

    def __init__(self, directory: Path) -> None:
        """Take up what a process before this one has left."""
        self._directory = directory
        with _telling(directory):
            make_directory(directory)
            self._open = _read(directory / "round.json")
            self._spool = self._take_up()

    def load(self) -> OpenRound | None:
        """As RoundJournal says; so are the others."""
        return self._open

    def kept(self) -> Sequence[Kept]:  # noqa: D102
        return self._spool.kept if self._spool is not None else ()

    def write(self, open_round: OpenRound) -> None:  # noqa: D102
        is_new = _is_new(open_round, self._open)
        with _telling(self._directory):
            self._write(open_round)
            if is_new:  # only now: until here the round before could still be taken up
                self._spool = self._take_up()

    def keep(self, replies: Sequence[tuple[Kept, Update | None]]) -> None:  # noqa: D102
        with _telling(self._directory):
            self._opened().keep(replies)

    def read(self, kept: Kept) -> Update:  # noqa: D102
        with _telling(self._directory):
            return self._opened().read(kept)

    def numbers(self, kept: Kept, name: str, start: int, stop: int) -> Tensor:  # noqa: D102
        with _telling(self._directory):
            return self._opened().numbers(kept, name, start, stop)

    def close(self, round: int) -> None:  # noqa: D102
        if self._open is not None and self._open.round == round:
            with _telling(self._directory):
                self._write(_closed(self._open, (kept.ticket for kept in self.kept())))
                self._spool = self._take_up()

    def _opened(self) -> ReplySpool:
        if self._spool is None:
            raise StorageError(f"{self._directory.name}: no round is open; write one first")
        return self._spool

    def _write(self, open_round: OpenRound) -> None:
        write_durably(self._directory / "round.json", _ROUND.dump_json(open_round))
        self._open = open_round

    def _take_up(self) -> ReplySpool | None:
        """Open the file of the open round and remove those of other rounds."""
        live = None
        if self._open is not None and not self._open.closed:
            run = re.sub(r"[^A-Za-z0-9_-]", "_", self._open.run)
            number, version = self._open.round, self._open.base_version
            live = self._directory / (
                f"replies-{run}-{number:06d}-{version:06d}{_kept_at_home(self._open)}.spool"
            )
        for file in self._directory.glob("replies-*.spool"):
            if file != live:
                file.unlink()
        return None if live is None else ReplySpool(live)


_ROUND = TypeAdapter(OpenRound)


def _read(file: Path) -> OpenRound | None:
    try:
        return _ROUND.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:  # no power cut does this: a bad disk, or another release
        log.warning("%s is damaged: its robots are asked again", file)
        return None


def _is_new(open_round: OpenRound, before: OpenRound | None) -> bool:
    return before is None or before.closed or before.key != open_round.key


def _closed(open_round: OpenRound, answered: Iterable[str]) -> OpenRound:
    done = set(answered)
    tickets = tuple(ticket for ticket in open_round.tickets if ticket.id not in done)
    return replace(open_round, robots=(), tickets=tickets, closed=True)


@contextmanager
def _telling(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{directory}: the round cannot be kept ({error.strerror}); what was kept before is "
            "safe. Give the disk room, then `cloud-server runs resume DIR`"
        ) from error
