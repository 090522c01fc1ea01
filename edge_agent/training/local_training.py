"""Answer one request with this robot's own examples."""

import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edge_agent.examples.spool.watch import FOLDER as KEPT
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings
from edge_agent.training.feature_cache import FOLDER
from edge_agent.training.training_job import ExampleSource, TrainingJob
from edge_agent.training.work_kinds import work_of
from fleet_model.bundle import FileEntry
from fleet_model.errors import UpdateError
from fleet_model.store import ModelStore

if TYPE_CHECKING:
    from edge_agent.examples.example_store import ExampleStore
    from fleet_model.protocol.wire import TrainRequest
    from fleet_model.types import Update

TRAINED, INDEX = "trained.json", "known-frames"  # in the state directory
STORE = "edge_agent.training.local_training:open_store"


def open_store(
    paths: Iterable[str], *, kept: str = "", trained: str = "", index: str = "", **arguments: Any
) -> "ExampleStore":
    """Open the example store in the training process, from JSON values; "" is no path."""
    from edge_agent.examples.example_store import ExampleStore  # not in the agent: it stays small

    return ExampleStore(
        paths=[Path(path) for path in paths],
        kept=Path(kept) if kept else None,
        trained=Path(trained) if trained else None,
        index=Path(index) if index else None,
        **arguments,
    )


class LocalTraining:
    """Gets the trainer that a request names, then trains in whatever process `fit` uses."""

    def __init__(
        self,
        settings: AgentSettings,
        models: Models,
        store: ModelStore,
        fit: "Callable[[TrainingJob, float], Update]",  # job, seconds that it may take
    ) -> None:
        self._settings = settings
        self._models = models
        self._store = store
        self._fit = fit

    def answer(self, request: "TrainRequest", robot: str) -> "Update":
        """Return the reply: an update, or whatever the request's kind asks for.

        Raises:
            BundleError: the trainer's files are damaged or do not suit this robot.
            UpdateError: the request names no trainer, or is of a kind that is not known here.
            ConnectionFailed: the trainer's files cannot be fetched now.
            TrainingError, FrameError: see Trainer.fit.
        """
        begin = time.monotonic()
        work_of(request.kind)
        training, examples = self._settings.training, self._settings.examples
        try:
            entry = FileEntry(sha256=request.trainer, size_bytes=request.trainer_bytes)
        except ValidationError:
            raise UpdateError(
                f"the message names trainer {request.trainer[:64]!r} of {request.trainer_bytes} "
                "bytes, expected a sha256 and a size"
            ) from None
        spec, directory = self._models.trainer(self._store, entry, training.trainer)
        with suppress(OSError):  # a full disk: training goes on without
            (directory / FOLDER).mkdir(exist_ok=True)  # the trainer keeps features between starts
        source = ExampleSource(
            factory=STORE,
            arguments={
                "paths": [str(path) for path in examples.paths],
                "kept": str(self._settings.state / KEPT) if examples.spool else "",
                "trained": str(self._settings.state / TRAINED),
                "index": str(self._settings.state / INDEX),
                "topic": examples.topic,
                "label_topic": examples.label_topic,
                "labels": spec.workload.config.get("labels", ()),
                "held_out": examples.held_out,
                "tolerance_s": examples.tolerance_s,
            },
        )
        # Robots with equal data must not shuffle alike; the name keeps a robot's order repeatable.
        seed = request.config.seed ^ zlib.crc32(robot.encode())
        job = TrainingJob(
            trainer=training.trainer,
            spec=spec,
            directory=directory,
            examples=source,
            checkpoint=request.checkpoint,
            config=replace(request.config, seed=seed),
            kind=request.kind,
        )
        return self._fit(job, request.deadline_s - (time.monotonic() - begin))
