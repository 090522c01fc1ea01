"""The child process in which all clients of a rehearsal train, one after the other."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fleet_model.errors import RoundError, TrainingError
from fleet_model.profiles.profile import GROUP
from fleet_model.types import PROFILE, Metrics, TrainConfig, Update, Weights
from fleet_model.weights import read_weights, write_weights

# By its name: the server knows nothing of the agent, and loads no framework.
PROGRAM = ("-m", "edge_agent.training.trainers.many_clients")
_TOO_FEW = "NoExamplesError"  # the class of the trainer's error


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientData:
    """What one client has: every so manieth row of tables."""

    paths: Sequence[Path]
    part: int  # from 0
    parts: int
    most: int = 0  # rows; 0: all


class ClientProcess:
    """Starts with the first training and ends with this object, or with its parent."""

    def __init__(self, model: Path, environment: Mapping[str, str]) -> None:
        """Start nothing.

        Args:
            model: directory with the trainer's files.
            environment: added to this process's own, as OMP_NUM_THREADS.
        """
        self._model, self._environment = model, dict(environment)
        self._child: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> "ClientProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._folder.cleanup()

    def train(
        self, data: ClientData, version: int, weights: Weights, config: TrainConfig
    ) -> Update:
        """Return the update of one client.

        Raises:
            TrainingError: it failed on purpose, in words.
            RoundError: the process has died.
        """
        made = Path(self._folder.name) / "made"
        more = {"config": asdict(config), "update": str(made)}
        answer = self._ask(data, version, weights, more)
        return Update(
            robot="",
            base_version=version,
            weights={name: tensor.copy() for name, tensor in read_weights(made).items()},
            num_examples=int(answer["num_examples"]),
            num_steps=int(answer["num_steps"]),
            metrics=answer["metrics"],
        )

    def measure(self, data: ClientData, version: int, weights: Weights) -> Metrics:
        """Return what one client measures of weights on its held-out examples; raises as above."""
        found: Metrics = self._ask(data, version, weights, {})["metrics"]
        return found

    def profile(self, data: ClientData, version: int, weights: Weights) -> Update | None:
        """Return the first profile of one client; None where it has too few records for one.

        Raises:
            TrainingError: the model makes no profiles.
            RoundError: the process has died.
        """
        made = Path(self._folder.name) / "profile"
        with tempfile.TemporaryDirectory(dir=self._folder.name) as sent:
            answer = self._answered(data, version, weights, {"profile": str(made), "sent": sent})
        if answer.get("error") == _TOO_FEW:
            return None
        if "error" in answer:
            raise TrainingError(str(answer["message"]))
        tensors = {name: tensor.copy() for name, tensor in read_weights(made).items()}
        return Update(
            kind=PROFILE,
            robot="",
            base_version=version,
            weights={},
            groups={GROUP: tensors},
            num_examples=int(answer["num_examples"]),
            num_steps=0,
            metrics=answer["metrics"],
        )

    def _ask(
        self, data: ClientData, version: int, weights: Weights, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        answer = self._answered(data, version, weights, more)
        if "error" in answer:
            raise TrainingError(str(answer["message"]))
        return answer

    def _answered(
        self, data: ClientData, version: int, weights: Weights, more: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what the process says, which may be an error."""
        given = Path(self._folder.name) / "given"
        write_weights(given, weights)
        asked = {
            "paths": [str(path) for path in data.paths],
            "part": data.part,
            "parts": data.parts,
            "most": data.most,
            "weights": str(given),
            "version": version,
            **more,
        }
        return self._answer(asked)

    def _answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, *PROGRAM, str(self._model)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **self._environment},
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(asked).encode() + b"\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except OSError:
            line = b""
        if not line:
            code = self._child.wait()
            why = "the system has ended it, for want of memory?" if code == -9 else "see its words"
            raise RoundError(f"the process that trains has ended ({code}): {why}")
        answer: dict[str, Any] = json.loads(line)
        return answer
