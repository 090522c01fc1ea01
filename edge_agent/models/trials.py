"""What this robot knows of the models that it has tried, over any end of the agent.

  <models>/trials.json   who is on probation, which versions were tried how often, and the verdicts

It is written before the pointers of channels.py change: after a cut between the two, the next start
finds what was meant, and does it. `edge-agent rollback` writes it beside a running agent, so all
changes are made while the lock is held.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edge_agent.models.verdict import Findings
from fleet_model.durable import make_directory, stamp_of, write_durably
from fleet_model.protocol.trial import TrialOutcome

FILE, LOCK = "trials.json", ".trials.lock"
KEPT = 20  # versions
log = logging.getLogger(__name__)


class Tried(BaseModel):
    """A version that was tried, or is being tried."""

    model_config = ConfigDict(extra="ignore")

    name: str  # of its folder
    tries: int = 0  # that have begun
    refused: bool = False  # it is not tried again
    outcome: TrialOutcome | None = None  # of the last try; None: it has not come to an end

    @property
    def is_done(self) -> bool:
        """Return whether its files are needed only while it is in use."""
        return self.refused or (self.outcome is not None and self.outcome.took_over)


class Probation(BaseModel):
    """The active version, while it is not confirmed."""

    model_config = ConfigDict(extra="ignore")

    name: str
    before: str  # the version to go back to
    since_s: float  # Unix time of the switch
    starts: int = 0  # of the agent since then
    forced: bool = False  # a person has decided for it: it is only asked to run


class Trials(BaseModel):
    """The content of the file."""

    model_config = ConfigDict(extra="ignore")

    probation: Probation | None = None
    tried: list[Tried] = []  # the last one stands last
    forced: str = ""  # version that `edge-agent install --force` has chosen

    def of(self, name: str) -> Tried | None:
        """Return what is known of a version."""
        return next((one for one in self.tried if one.name == name), None)

    def put(self, tried: Tried) -> None:
        """Remember a version as the last one; those that were never in use are forgotten first."""
        others = [one for one in self.tried if one.name != tried.name]
        if len(others) >= KEPT:
            others.remove(next((one for one in others if one.refused), others[0]))
        self.tried = [*others, tried]

    def forget_unless_active(self, active: str) -> None:
        """Forget that the last version took over if a cut came before the pointers changed."""
        last = self.tried[-1] if self.tried else None
        if last and last.name != active and last.outcome and last.outcome.took_over:
            last.outcome = None

    @property
    def last(self) -> TrialOutcome | None:
        """Return what became of the version that was tried last."""
        return next((one.outcome for one in reversed(self.tried) if one.outcome), None)


class TrialFile:
    """Reads and writes the file in the models folder."""

    def __init__(self, models: Path) -> None:
        self._folder = models

    def read(self) -> Trials:
        """Return its content; a damaged file counts as none, for the models must go on."""
        try:
            return Trials.model_validate_json((self._folder / FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return Trials()
        except (OSError, ValidationError) as error:
            log.warning("%s cannot be read (%s); no trial is known", FILE, type(error).__name__)
            return Trials()

    def write(self, trials: Trials) -> None:
        """Replace it in one step; raises OSError."""
        write_durably(self._folder / FILE, trials.model_dump_json(exclude_defaults=True) + "\n")

    @property
    def stamp(self) -> tuple[int, int]:
        """Return what changes with every `write`, of any process."""
        return stamp_of(self._folder / FILE)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else change trials or pointers; raises OSError."""
        make_directory(self._folder)
        # To read: a file that root has made, by `edge-agent rollback`, must not stop the agent.
        descriptor = os.open(self._folder / LOCK, os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def outcome_of(version: int, state: str, why: str, found: Findings) -> TrialOutcome:
    """Return what may leave the robot: kinds and numbers."""

    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None or value - value != 0 else round(value, digits)

    return TrialOutcome(
        version=version,
        state=state,
        why=why,
        running=found.running,
        measure=found.measure[:40] if found.measure.isprintable() else "",
        before=rounded(found.before, 4),
        after=rounded(found.after, 4),
        confirmed=rounded(found.confirmed, 4),
        agreeing=found.agreeing,
        examples=found.examples,
        samples=found.samples,
        kept=found.kept,
        before_ms=rounded(found.before_ms, 3),
        after_ms=rounded(found.after_ms, 3),
    )
