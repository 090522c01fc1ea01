"""Remember which recordings of the spool were taken in, and what came of them in numbers."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_agent.examples.spool.kept_examples import BatchNote
from edge_agent.examples.spool.recordings import TOTALS, Recording
from fleet_model.durable import write_durably
from fleet_model.errors import FrameError

FILE = "ledger.json"
KEEP = 10_000  # recordings, 60 bytes each: those that were taken in first are forgotten
_SAMPLE = 4096  # bytes at both ends of a file tell recordings of one name and size apart
_TAKEN = ""
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Underway:
    """A recording of which a part may be in the store already."""

    borders: list[int]  # times in ns that cut it into parts
    parts: int = 0  # done
    attempts: int = 0  # processes that began it; more than a few means that it kills them


@dataclass(slots=True)
class Totals:
    """Sums over everything that was ever taken in, for `edge-agent status`."""

    recordings: int = 0
    unreadable: int = 0  # recordings, on top of these
    frames: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> frames
    damage: dict[str, int] = field(default_factory=dict)  # kind -> how often
    examples: int = 0  # in the store now
    megabytes: float = 0.0  # of these
    error: str = ""  # of the recording that failed last

    def add(self, note: BatchNote) -> None:
        """Count a part of a recording."""
        self.frames += note.seen
        self.kept += note.kept
        self.dropped = _sum(self.dropped, note.dropped)
        self.damage = _sum(self.damage, note.damage)


class Ledger:
    """ledger.json in the store's folder; every change is one durable replacement of the file."""

    def __init__(self, folder: Path, settings: str) -> None:
        """Read it; one that cannot be read counts as empty.

        Args:
            folder: the store's.
            settings: what decides whether a recording can be read. One that could not is tried
                again when this is another.
        """
        self._folder, self._settings = folder, settings
        self._done: dict[str, str] = {}  # id -> the settings that it failed with
        self._underway: dict[str, Underway] = {}
        self.totals = Totals()
        try:
            content = json.loads((folder / FILE).read_text())
            self.totals = Totals(**content["totals"])
            self._underway = {name: Underway(**u) for name, u in content["underway"].items()}
            self._done = dict(content["done"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s cannot be read (%s); it starts empty", FILE, error)

    def is_done(self, recording: str) -> bool:
        """Return whether there is nothing more to do for a recording, given by its id."""
        return self._done.get(recording) in (_TAKEN, self._settings)

    def underway(self, recording: str) -> Underway | None:
        """Return what is planned for a recording; change it, then `save`."""
        return self._underway.get(recording)

    def forget_others(self, recordings: Collection[str]) -> None:
        """Drop the plans of recordings that are no longer there."""
        self._underway = {n: u for n, u in self._underway.items() if n in recordings}

    def plans(self) -> Iterable[tuple[str, Underway]]:
        """Return (id, plan) of every recording that is underway."""
        return self._underway.items()

    def begin(self, recording: str, borders: list[int]) -> Underway:
        """Plan a recording."""
        self._underway[recording] = Underway(borders)
        return self._underway[recording]

    def finish(self, recording: str, error: str = "") -> None:
        """Remember that a recording was taken in, or why it cannot be."""
        self._underway.pop(recording, None)
        self._done.pop(recording, None)  # the newest is last
        self._done[recording] = self._settings if error else _TAKEN
        self.totals.recordings += not error
        self.totals.unreadable += bool(error)
        self.totals.error = error or self.totals.error
        self.save()

    def save(self) -> None:
        """Put everything on disk. Raises OSError."""
        self._done = dict(list(self._done.items())[-KEEP:])
        content = {
            "done": self._done,
            "underway": {name: asdict(underway) for name, underway in self._underway.items()},
            "totals": asdict(self.totals),
        }
        write_durably(self._folder / FILE, json.dumps(content))
        write_durably(self._folder / TOTALS, json.dumps(asdict(self.totals)))


def recording_id(recording: Recording, spool: Path) -> str:
    """Return a short text that names a recording by place and content.

    Not the times of its files: a copy of a bag is the same bag. Not metadata.yaml either, which
    comes later when a bag that was cut off is repaired.

    Raises:
        FrameError: a file cannot be read.
    """
    digest = hashlib.blake2b(
        str(recording.path.relative_to(spool)).encode(errors="surrogateescape")
    )
    for name, size, _ in recording.signature:
        if name != "metadata.yaml":
            folder = recording.path if recording.path.is_dir() else recording.path.parent
            digest.update(f"/{name}/{size}/".encode(errors="surrogateescape"))
            digest.update(_ends(folder / name))
    return digest.hexdigest()[:16]


def _ends(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            head = stream.read(_SAMPLE)
            stream.seek(max(0, stream.seek(0, 2) - _SAMPLE))
            return head + stream.read(_SAMPLE)
    except OSError as error:
        raise FrameError(f"{file.name}: {error.strerror}") from None


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return dict(Counter(one) + Counter(other))
