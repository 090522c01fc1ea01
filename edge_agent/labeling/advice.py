"""What the models of this robot say of a frame: the active one, and the one on trial beside it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.labeling.scoring import disagreement, scores_of, uncertainty, value
from edge_agent.labeling.views import Sight, feature_row
from edge_agent.models.trials import TrialFile
from fleet_model.bundle import MANIFEST, Task
from fleet_model.durable import pointed
from fleet_model.engine import Engine
from fleet_model.errors import FleetError
from fleet_model.types import Prediction, Tensors
from fleet_model.workload import sure

log = logging.getLogger(__name__)


class Advised(NamedTuple):
    """What is known of a frame once the models were asked."""

    found: Sequence[Prediction] = ()  # by the active model
    version: int | None = None  # of it; None: there is no model
    answer: str = ""  # what it finds, see Task.answer
    value: float = 1.0  # of a label, 0..1
    sight: Sight | None = None  # what the active model makes of it; None: it tells no features


class Advice:
    """Follows the robot's models. `look` and `of` are for one thread; the rest for any."""

    def __init__(self, models: Path, open_engine: Callable[[Path], Engine]) -> None:
        """Open nothing yet.

        Args:
            models: folder of the robot's models.
            open_engine: opens a bundle directory; raises FleetError or OSError.
        """
        self._models, self._open = models, open_engine
        self._seen: tuple[Path, Path | None] | None = None
        self._engine: Engine | None = None
        self._other: Engine | None = None
        self.problem = ""  # why no model is asked

    @property
    def task(self) -> Task | None:
        """Return what the active model answers; None without one."""
        return self._engine.workload.task if self._engine else None

    @property
    def versions(self) -> list[int]:
        """Return the versions that are asked, the active one first."""
        return [engine.manifest.version for engine in (self._engine, self._other) if engine]

    def look(self) -> bool:
        """Open the models that are there now; return whether they are others than before."""
        active = pointed(self._models / "current").resolve()
        seen = active, other_bundle(self._models, active.name)
        if seen == self._seen:
            return False
        self._seen = seen
        before = self._engine, self._other
        try:
            self._engine = self._open(active) if (active / MANIFEST).exists() else None
            self.problem = "" if self._engine else "no model is installed yet"
        except (FleetError, OSError) as error:  # the one that was asked goes on
            self.problem = f"the model does not load: {error}"
        self._other = self._opened(seen[1])
        return (self._engine, self._other) != before

    def of(self, frame: Any) -> Advised:
        """Ask about a frame; raises FrameError where it cannot be read."""
        if self._engine is None:
            return Advised()
        task, version = self._engine.workload.task, self._engine.manifest.version
        answer = self._engine.answer(frame)
        found = sure(self._engine.workload, answer.predictions)
        differ = disagreement(found, _said(self._other, frame)) if self._other else 0.0
        worth = value(uncertainty(found), differ)
        sight = sight_of(answer.features, found, task.classes)
        return Advised(found, version, task.answer, worth, sight)

    def _opened(self, bundle: Path | None) -> Engine | None:
        if bundle is None or self._engine is None:
            return None
        try:
            other = self._open(bundle)
        except (FleetError, OSError) as error:
            log.warning("the model on trial is not asked: %s", error)
            return None
        return other if other.workload.task.answer == self._engine.workload.task.answer else None


def _said(engine: Engine, frame: Any) -> Sequence[Prediction]:
    return sure(engine.workload, engine.answer(frame).predictions)


def sight_of(
    features: Tensors, found: Sequence[Prediction], classes: Sequence[str]
) -> Sight | None:
    """Return what a model makes of a frame; None where its features say nothing.

    Args:
        features: see fleet_model.engine.Answer.
        found: what it finds.
        classes: that it may find.
    """
    row = feature_row(features)
    return None if row is None else Sight(row, scores_of(found, classes))


def other_bundle(models: Path, active: str) -> Path | None:
    """Return the version that the active one is compared with now; None where there is none.

    It is the next one while it is tried, and the one before while the new one is on probation.
    """
    trials = TrialFile(models).read()
    if trials.probation and trials.probation.name == active:
        names = [trials.probation.before]
    else:
        names = [one.name for one in trials.tried[-1:] if not one.refused and one.name != active]
    folders = (models / "versions" / name for name in names if name)
    return next((folder for folder in folders if (folder / MANIFEST).exists()), None)
