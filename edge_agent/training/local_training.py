"""Answer one request with this robot's own examples."""

import time
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from edge_agent.examples.source import source_of
from edge_agent.models.deploy import Models
from edge_agent.models.personal.tensors import FOLDER as OWN
from edge_agent.models.personal.tensors import drop_own
from edge_agent.robot.settings import AgentSettings
from edge_agent.training.feature_cache import FOLDER
from edge_agent.training.own_control import begin_control
from edge_agent.training.protection import protected, require_protectable
from edge_agent.training.residual import Residual
from edge_agent.training.sent_sums import FOLDER as SENT
from edge_agent.training.training_job import TrainingJob
from edge_agent.training.work_kinds import work_of
from fleet_model.bundle import FileEntry
from fleet_model.errors import TrainingError, UpdateError
from fleet_model.store import ModelStore
from fleet_model.types import PROFILE, SUMS, TRAIN
from fleet_model.workload import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_agent.training.residual import Counted
    from fleet_model.protocol.wire import RobotRequest
    from fleet_model.types import Update


class LocalTraining:
    """Gets the trainer that a request names, then trains in whatever process `fit` uses."""

    def __init__(
        self,
        settings: AgentSettings,
        models: Models,
        store: ModelStore,
        fit: "Callable[[TrainingJob, float], Update]",  # job, seconds that it may take
        counted: "Callable[[], Counted]" = lambda: ("", 0),  # see Residual
    ) -> None:
        self._settings = settings
        self._models = models
        self._store = store
        self._fit = fit
        self._residual = Residual(settings.state, counted)
        self.classes: tuple[str, ...] = ()  # that the last request was about

    def answer(self, request: "RobotRequest", robot: str) -> "Update":
        """Return the reply: an update, or whatever the request's kind asks for.

        Raises:
            BundleError: the trainer's files are damaged or do not suit this robot.
            UpdateError: the request names no trainer, or is of a kind that is not known here.
            ConnectionFailed: the trainer's files cannot be fetched now.
            TrainingError, FrameError: see Trainer.fit.
            StorageError: what the update leaves out cannot be kept.
        """
        begin = time.monotonic()
        work_of(request.kind)
        if request.kind == PROFILE and not self._settings.training.profile:
            raise TrainingError("this machine tells no profile: training.profile = false")
        require_protectable(request.config)
        control = begin_control(self._settings.state, request)
        training = self._settings.training
        try:
            entry = FileEntry(sha256=request.trainer, size_bytes=request.trainer_bytes)
        except ValidationError:
            raise UpdateError(
                f"the message names trainer {request.trainer[:64]!r} of {request.trainer_bytes} "
                "bytes, expected a sha256 and a size"
            ) from None
        spec, directory = self._models.trainer(self._store, entry, training.trainer)
        self.classes = (spec.task or rebuild(spec.workload).task).classes
        with suppress(OSError):  # a full disk: training continues without
            (directory / FOLDER).mkdir(exist_ok=True)  # the trainer keeps features between starts
        # What updates without noise have left out must not be sent with one that has noise.
        before = {} if request.config.private_clip > 0 else self._residual.before(request)
        # Robots with equal data must not shuffle alike; the name keeps a robot's order repeatable.
        seed = request.config.seed ^ zlib.crc32(robot.encode())
        own = self._settings.state / OWN
        if request.kind == TRAIN and not request.personal:
            drop_own(own, "the server shares all tensors now")
        job = TrainingJob(
            trainer=training.trainer,
            spec=spec,
            directory=directory,
            examples=source_of(
                self._settings,
                trains=request.kind in (TRAIN, SUMS),
                pseudo=request.kind == TRAIN,
            ),
            checkpoint=request.checkpoint,
            config=replace(request.config, seed=seed),
            kind=request.kind,
            correction=None if control is None else control.correction,
            sent=self._settings.state / SENT,
            personal=request.personal,
            own=own,
        )
        update = self._fit(job, request.deadline_s - (time.monotonic() - begin))
        if request.kind == TRAIN and request.config.private_clip > 0:
            update = protected(update, request.config)
        update = update if control is None else control.finish(update)
        return self._residual.send(request, before, update)
