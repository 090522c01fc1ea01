"""Run whichever model a link names now, without a gap when it names another one."""

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.bundle import Manifest
from fleet_model.durable import pointed
from fleet_model.engine import Answer, TFLiteEngine, open_engine
from fleet_model.errors import FleetError
from fleet_model.personal.choice import PersonalChoice, stamp
from fleet_model.workload import Workload

log = logging.getLogger(__name__)


class FollowingEngine:
    """An Engine that follows `state/models/current` of a robot.

    A thread looks at the link, and at what of the robot's own is chosen for its model. It loads a
    new model beside the running one and warms it up; then the next input is answered by the new
    one. What cannot be loaded is logged once, and the model that ran goes on; where a disk is what
    fails it is tried again. `answer` is for one thread at a time, as of every engine.
    """

    def __init__(
        self,
        current: Path,
        precision: str = "fp32",
        *,
        every_s: float = 1.0,
        open_engine: Callable[[Path, str], TFLiteEngine] = open_engine,
        switched: Callable[[TFLiteEngine], None] = lambda engine: None,
    ) -> None:
        """Load the model of now, and begin to look.

        Args:
            current: the link, or on disks without links the file that holds its target.
            precision: "fp32" or "int8", of every version.
            every_s: between two looks at the link; a look costs a few microseconds.
            open_engine: loads a bundle directory.
            switched: gets each further model once it answers, in the thread that loaded it.

        Raises:
            BundleError: there is no whole model now.
        """
        self._current, self._precision, self._open = current, precision, open_engine
        self._switched = switched
        self._loading = threading.Lock()
        self._seen = self._named()
        self._engine = self._load(self._seen.bundle)
        self._ended = threading.Event()
        self._every_s = every_s
        threading.Thread(target=self._follow, name="following-engine", daemon=True).start()

    @property
    def now(self) -> TFLiteEngine:
        """The model that answers now, for who asks several things of the same one."""
        return self._engine

    @property
    def workload(self) -> Workload:
        """What was learned, of the model that answers now."""
        return self._engine.workload

    @property
    def manifest(self) -> Manifest:
        """What was published, of the model that answers now."""
        return self._engine.manifest

    @property
    def personal(self) -> PersonalChoice | None:
        """What of this robot's own answers now; None: nothing was asked for."""
        return self._engine.personal

    def answer(self, raw: Any) -> Answer:
        """Return the outputs for one raw input, and what they say; FrameError if it is damaged."""
        return self._engine.answer(raw)

    def reload(self) -> None:
        """Load what the link names, also if that is the model of now, whose files may be mended.

        Raises:
            BundleError: it is no whole model; the one that ran goes on.
        """
        self._switch_to(self._named())

    def close(self) -> None:
        """Look no more; the model of now goes on to answer. `switched` is not called after this."""
        self._ended.set()
        with self._loading:  # by the other thread, which may be about to call it
            pass

    def _follow(self) -> None:
        told = ""
        while not self._ended.wait(self._every_s):
            try:
                named = self._named()
                if named != self._seen:
                    self._switch_to(named)
                    told = ""
            except Exception as error:  # noqa: BLE001  (of a disk, a bundle, others' workload)
                words = f"{error}" if isinstance(error, (FleetError, OSError)) else repr(error)
                if words != told:
                    before = self._engine.manifest.version
                    log.warning(
                        "version %d goes on, the new model does not load: %s", before, words
                    )
                told = words

    def _named(self) -> "_Named":
        bundle = pointed(self._current).resolve()
        return _Named(bundle, stamp(bundle))

    def _switch_to(self, named: "_Named") -> None:
        with self._loading:
            seen, self._seen = self._seen, named
            try:
                # In one step: who answers now keeps the old one.
                self._engine = self._load(named.bundle)
            except OSError:  # it may pass: no file can be opened, say
                self._seen = seen
                raise
            engine = self._engine
            own = f": {engine.runs}" if engine.personal else ""
            log.info("version %d answers now%s", engine.manifest.version, own)
            if not self._ended.is_set():
                self._switched(self._engine)

    def _load(self, bundle: Path) -> TFLiteEngine:
        engine = self._open(bundle, self._precision)
        engine.warm_up()
        return engine


class _Named(NamedTuple):
    """What the link names now."""

    bundle: Path
    stamp: tuple[int, int]  # of what of the robot's own runs it


class FollowedModel:
    """A FollowingEngine that may come later: a robot's first model is not there yet."""

    def __init__(
        self,
        current: Path,
        precision: str,
        threads: int,
        answers: Callable[[TFLiteEngine], None],
    ) -> None:
        """Look for the model.

        Args:
            current: bundle directory, or the agent's link to it.
            precision: "fp32" or "int8".
            threads: of the interpreter.
            answers: gets every model once it answers; also from another thread.
        """
        self.problem = ""  # why there is no model
        self._current = current
        self._answers = answers
        self._make = partial(
            FollowingEngine,
            current,
            precision,
            open_engine=partial(open_engine, num_threads=threads),
            switched=answers,
        )
        self._following: FollowingEngine | None = None
        self.look()

    @property
    def engine(self) -> TFLiteEngine | None:
        """The model of now; None: there is none yet."""
        return self._following.now if self._following else None

    def look(self) -> None:
        """Load the first model if it is there now; `problem` says why it is not."""
        if self._following:
            return
        try:
            self._following = self._make()
        except PermissionError:
            step = "`sudo adduser USER edge-agent`, and log in again"
            self.problem = f"no model answers, {self._current}: this user may not read it: {step}"
        except (FleetError, OSError) as error:
            there = self._current.exists() or self._current.is_symlink()
            why = f"{error}" if there else "there is no such bundle yet"
            why += "" if why.endswith((".", "?")) else "."
            self.problem = f"no model answers, {self._current}: {why} The agent installs one."
        else:
            self.problem = ""
            self._answers(self._following.now)

    def reload(self) -> str:
        """Load again what is installed; return why that failed, "" if it did not."""
        if self._following is None:
            self.look()
            return self.problem
        try:
            self._following.reload()
        except (FleetError, OSError) as error:
            version = self._following.now.manifest.version
            return f"version {version} goes on, the model does not load: {error}"
        return ""

    def close(self) -> None:
        """Look no more."""
        if self._following:
            self._following.close()
