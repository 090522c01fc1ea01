"""Run whichever model a link names now, without a gap when it names another one."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet_model.bundle import Manifest
from fleet_model.durable import pointed
from fleet_model.engine import Answer, TFLiteEngine
from fleet_model.errors import FleetError
from fleet_model.workload import Workload

log = logging.getLogger(__name__)


class FollowingEngine:
    """An Engine that follows `state/models/current` of a robot.

    A thread looks at the link. It loads a new model beside the running one and warms it up; then
    the next input is answered by the new one. What cannot be loaded is logged once, and the model
    that ran goes on. `answer` is for one thread at a time, as of every engine.
    """

    def __init__(
        self,
        current: Path,
        precision: str = "fp32",
        *,
        every_s: float = 1.0,
        open_engine: Callable[[Path, str], TFLiteEngine] = TFLiteEngine,
    ) -> None:
        """Load the model of now, and begin to look.

        Args:
            current: the link, or on disks without links the file that holds its target.
            precision: "fp32" or "int8", of every version.
            every_s: between two looks at the link; a look costs a few microseconds.
            open_engine: loads a bundle directory.

        Raises:
            BundleError: there is no whole model now.
        """
        self._current, self._precision, self._open = current, precision, open_engine
        self._seen = pointed(current).resolve()
        self._engine = self._load(self._seen)
        self._ended = threading.Event()
        self._every_s = every_s
        threading.Thread(target=self._follow, name="following-engine", daemon=True).start()

    @property
    def workload(self) -> Workload:
        """What was learned, of the model that answers now."""
        return self._engine.workload

    @property
    def manifest(self) -> Manifest:
        """What was published, of the model that answers now."""
        return self._engine.manifest

    def answer(self, raw: Any) -> Answer:
        """Return the outputs for one raw input, and what they say; FrameError if it is damaged."""
        return self._engine.answer(raw)

    def close(self) -> None:
        """Look no more; the model of now goes on to answer."""
        self._ended.set()

    def _follow(self) -> None:
        while not self._ended.wait(self._every_s):
            named = pointed(self._current).resolve()
            if named == self._seen:
                continue
            self._seen = named
            before = self._engine.manifest.version
            try:
                self._engine = self._load(named)  # in one step: who answers now keeps the old one
            except (FleetError, OSError) as error:
                log.warning("version %d goes on, the new model does not load: %s", before, error)
            else:
                log.info("version %d answers now", self._engine.manifest.version)

    def _load(self, bundle: Path) -> TFLiteEngine:
        engine = self._open(bundle, self._precision)
        engine.warm_up()
        return engine
