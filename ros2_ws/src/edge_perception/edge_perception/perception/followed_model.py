"""The model that a node runs: the one that the robot's agent has installed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fleet_model.engine import TFLiteEngine
from fleet_model.errors import FleetError
from fleet_model.following import FollowingEngine


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
            open_engine=partial(TFLiteEngine, num_threads=threads),
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
        except (FleetError, OSError) as error:
            self.problem = f"no model answers, {self._current}: {error} The agent installs one."
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
