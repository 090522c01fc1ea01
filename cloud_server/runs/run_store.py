"""What is known of every run, one small file each: the next server process reads on from it."""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cloud_server.flower.flower_link import FlowerRun
from cloud_server.models.release_log import Release
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import newest_lines
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError, StorageError, one_line
from fleet_model.types import TRAIN

RunState: TypeAlias = Literal["waiting", "running", "publishing", "finished", "failed", "stopped"]
Ending: TypeAlias = Literal["finished", "failed", "stopped"]
ENDED = ("finished", "failed", "stopped")
MAX_CLOSED = 100  # rounds of a run that are held in memory
MAX_ROBOTS = 100  # records of robots in them; those of larger rounds are in the history only
KEPT_RUNS = 100  # older ones that have ended are forgotten; their rounds stay in the history
log = logging.getLogger(__name__)


class Run(BaseModel):
    """One run: what a crash must leave of it.

    The thread that works on it and the operator's requests change it, each inside
    `RunStore.changing`.
    """

    model_config = ConfigDict(extra="ignore", validate_assignment=True)

    id: str
    channel: str = ""  # what it trains for; "": of an older server, the channel in the settings
    # evaluate: one round that only measures; profile: one that asks for profiles
    kind: Literal["train", "evaluate", "profile"] = "train"
    rounds: int = Field(ge=1)
    closed_form: str = ""  # train: what its first round makes of sums; "": it trains
    state: RunState = "waiting"  # until its thread begins
    ending: Ending = "finished"  # what it will be once it has published
    rounds_closed: int = 0
    first_version: int = 0  # of the checkpoint that round 1 starts from, or that is measured
    robots: tuple[str, ...] = ()  # of one round: only these; empty: all that the settings allow
    measured: dict[str, Any] | None = None  # of one round: RoundRecord.as_json or `brief`
    published_version: int | None = None
    release: Release | None = None  # what became of the version that it made last
    error: Annotated[str, AfterValidator(one_line)] = ""  # may quote robots
    exit_code: int = 0
    started_at: float  # Unix time
    ended_at: float | None = None
    seconds: float = 0.0  # at work, over all server processes
    scheduled: bool = False  # begun by the schedule, or together with it
    stopping: bool = False  # the operator has asked for its end
    flower: FlowerRun | None = None  # where robots were asked last
    # The newest closed rounds as JSON, for the operator; on disk they are in the history.
    closed: list[dict[str, Any]] = Field(default_factory=list, exclude=True)

    @property
    def active(self) -> bool:
        """Return whether the run goes on, or will when the server is back."""
        return self.state not in ENDED

    @property
    def version(self) -> int | None:
        """Return the version that its newest closed round made; None if there is none."""
        made = self.kind == TRAIN and self.rounds_closed > 0
        return self.first_version + self.rounds_closed if made else None

    def add(self, record: dict[str, Any]) -> None:
        """Count a closed round; one that is told again stays one."""
        self.rounds_closed = record["round"]
        older = [one for one in self.closed if one["round"] != record["round"]]
        self.closed, room = [*older, record][-MAX_CLOSED:], MAX_ROBOTS
        for index in reversed(range(len(self.closed))):
            room -= len(self.closed[index].get("robots", ()))
            if room < 0:
                self.closed[index] = brief(self.closed[index])

    def lighten(self) -> None:
        """Let go of the records of a large evaluation; they stay in run.json.

        Only of one that finished: any other may be resumed, and is saved again then.
        """
        robots = (self.measured or {}).get("robots", ())
        if self.measured is not None and len(robots) > MAX_ROBOTS and self.ending == "finished":
            self.measured = brief(self.measured)

    def begin_again(self) -> None:
        """Make a run that has ended wait for its thread."""
        self.stopping, self.ended_at = False, None
        self.error, self.exit_code = "", 0
        self.state, self.ending = "waiting", "finished"

    def catch_up(self, checkpoints: Checkpoints) -> None:
        """Let the next round start from the newest checkpoint; other runs may have made it.

        Rounds that are durable count, also when the run could not write down that they had closed.
        An evaluation stays with the version that it measures.
        """
        if self.kind != TRAIN:
            return
        newest = checkpoints.newest() or 0
        # Rounds that it knows of made versions up to this one, whatever other runs have made since.
        known = self.first_version + self.rounds_closed
        own = (r.round for r in checkpoints.records(after=known) if r.run == self.id)
        self.rounds_closed = max([self.rounds_closed, *own])
        self.first_version = newest - self.rounds_closed

    def as_json(self, rounds: int = 10, *, robots: bool = True) -> dict[str, Any]:
        """Return JSON values.

        Args:
            rounds: how many of the newest closed ones are in `closed`.
            robots: whether these have robots' records, as far as they are held; else see `brief`.
        """
        shown = self.model_dump(exclude={"flower", "ending"})
        closed, measured = self.closed[-rounds:], self.measured
        if not robots:
            closed = [brief(record) for record in closed]
            measured = None if measured is None else brief(measured)
        return {**shown, "measured": measured, "closed": closed}


def brief(record: dict[str, Any]) -> dict[str, Any]:
    """Return a closed round with counts of its robots' verdicts in place of their records."""
    if "robots" not in record:
        return record
    verdicts = Counter(robot["verdict"] for robot in record["robots"])
    rest = {name: value for name, value in record.items() if name != "robots"}
    return {**rest, "verdicts": dict(verdicts)}


def recall(history: Path, runs: Sequence[Run]) -> None:
    """Read the newest closed rounds of runs that were loaded; the file is read from its end.

    Only lines of these runs are parsed, and no more of them than a run holds.
    """
    trained = [run for run in runs if run.kind == TRAIN]
    missing = {run.id for run in trained if run.active or run.rounds_closed}
    found: dict[str, dict[int, dict[str, Any]]] = {run.id: {} for run in runs}
    for line in newest_lines(history) if missing else ():
        key = line.key()
        if key is None or key[0] not in missing or key[1] in found[key[0]]:
            continue
        run_id, number, _ = key
        if (record := line.record()) is not None:
            found[run_id][number] = record.as_json()
        if number == 1 or len(found[run_id]) == MAX_CLOSED:
            missing.discard(run_id)
            if not missing:
                break
    for run in runs:
        for one in reversed(found[run.id].values()):
            run.add(one)


class RunStore:
    """<root>/<run>/run.json; the open round's journal lies beside it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._changing = threading.RLock()

    def directory(self, run_id: str) -> Path:
        """Return where a run keeps its open round."""
        return self._root / run_id

    def new_id(self, now: float) -> str:
        """Return a name that no run has, in the order of time."""
        run_id = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        while self.directory(run_id).exists():
            run_id += "b"
        return run_id

    def changing(self) -> AbstractContextManager[object]:
        """Let one thread at a time change a run and save it."""
        return self._changing

    def save(self, run: Run) -> None:
        """Replace what is known of a run in one step; raises StorageError if the disk is full."""
        file = self.directory(run.id) / "run.json"
        try:
            with self._changing:
                write_durably(file, run.model_dump_json(indent=1) + "\n")
        except OSError as error:
            raise StorageError(f"{file} cannot be written: {error.strerror}") from None

    def load(self) -> list[Run]:
        """Return every run, oldest first; a damaged file is left out with a line in the log."""
        found = [_read(file) for file in self._root.glob("*/run.json")]
        runs = [run for run in found if run is not None]
        for run in runs:
            if not run.active:  # an active one is saved again, with all that it has
                run.lighten()
        return sorted(runs, key=lambda run: (run.started_at, run.id))

    def get(self, run_id: str) -> Run | None:
        """Return one run, None if there is none."""
        file = self._root / run_id / "run.json"
        if Path(run_id).name != run_id or not file.exists():  # no path of a user's leads elsewhere
            return None
        return _read(file)

    def forget(self, runs: Iterable[Run]) -> None:
        """Remove runs that have ended."""
        for run in runs:
            if not run.active:
                shutil.rmtree(self.directory(run.id), ignore_errors=True)


def require_no_run(server_dir: ServerDirectory) -> None:
    """Raise SettingsError while a run goes on, of the server or of a ServerApp apart."""
    for root in (server_dir.runs, server_dir.runs_apart):
        for run in RunStore(root).load():
            if run.active:
                raise SettingsError(
                    f"run {run.id} goes on ({run.state}); wait until it has ended, or stop it with "
                    f"`cloud-server runs stop {server_dir.root} {run.id}`"
                )


def _read(file: Path) -> Run | None:
    try:
        return Run.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        log.warning("%s is left out: %s", file, error)
        return None
