"""Train for many clients on one machine in one process: `cloud-server simulate --workload` asks it.

    python -m edge_agent.training.trainers.many_clients MODEL

MODEL is a server's model directory. A line of JSON on stdin asks for one training, a line on stdout
answers; tensors lie in files beside. The model is built once, and so are the clients' examples.

    {"paths": [...], "part": 0, "parts": 3, "most": 100, "weights": FILE, "version": 4,
     "config": {...}, "update": FILE}
    {"num_examples": 80, "num_steps": 5, "metrics": {...}}   or   {"error": CLASS, "message": ...}

Without "config" and "update" the weights are measured and nothing is trained. With "profile" and
"sent", a file and a folder, the client's profile is made, and nothing is trained either.
"""

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent.examples.source import SourceSpec
from edge_agent.robot.child_process import signal_at_parents_end, take_pipes
from edge_agent.robot.logs import log_to_stderr
from edge_agent.robot.settings import TEXTS
from edge_agent.training.trainer import TRAINERS, Trainer
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.errors import FleetError, TrainingError
from fleet_model.loading import load_plugin
from fleet_model.profiles.profile import GROUP
from fleet_model.types import Checkpoint, Example, TrainConfig, Update
from fleet_model.weights import read_weights, write_weights
from fleet_model.workload import rebuild, takes_instructions


class ManyClients:
    """The trainer of a model, and what clients have."""

    def __init__(self, directory: Path) -> None:
        """Build the model; raises TrainingError, BundleError, SettingsError."""
        spec = parse_trainer((directory / TRAINER).read_bytes())
        known = [part for part in spec.parts if part in TRAINERS]
        if not known:
            raise TrainingError(f"nothing here trains {', '.join(spec.parts)}")
        self._workload = rebuild(spec.workload, directory)
        self._trainer: Trainer = load_plugin(TRAINERS, known[0])(spec, directory)
        self._examples: dict[str, list[Example]] = {}

    def do(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do one training, or measure; raises FleetError."""
        weights = dict(read_weights(Path(asked["weights"])))
        checkpoint = Checkpoint(version=int(asked["version"]), weights=weights)
        if "config" in asked:
            config = TrainConfig(**asked["config"])
            update = self._trainer.fit(checkpoint, self._of(asked), config)
            write_weights(Path(asked["update"]), update.weights)
        elif "profile" in asked:
            update = self._profile(checkpoint, asked)
        else:
            update = self._measured(checkpoint, self._of(asked))
        return {
            "num_examples": update.num_examples,
            "num_steps": update.num_steps,
            "metrics": dict(update.metrics),
        }

    def _measured(self, checkpoint: Checkpoint, examples: Sequence[Example]) -> Update:
        evaluate = getattr(self._trainer, "evaluate", None)
        if evaluate is None:
            raise TrainingError(f"{type(self._trainer).__name__} cannot measure")
        update: Update = evaluate(checkpoint, examples)
        return update

    def _profile(self, checkpoint: Checkpoint, asked: Mapping[str, Any]) -> Update:
        profile = getattr(self._trainer, "profile", None)
        if profile is None:
            raise TrainingError(f"{type(self._trainer).__name__} makes no profiles")
        update: Update = profile(checkpoint, self._of(asked), Path(asked["sent"]))
        write_weights(Path(asked["profile"]), update.groups[GROUP])
        return update

    def _of(self, asked: Mapping[str, Any]) -> list[Example]:
        """Return the examples of one client: each part gets every so manieth row of both kinds.

        At most `most` to learn from, and a quarter as many to measure with; 0 is all.
        """
        part, parts, most = (int(asked[name]) for name in ("part", "parts", "most"))
        key = json.dumps([asked["paths"], part, parts, most])
        if key not in self._examples:
            task = self._workload.task
            spec = SourceSpec(name=TEXTS, options={"paths": list(asked["paths"])})
            found = spec.examples(task.classes, answers=takes_instructions(self._workload))
            sides: dict[bool, list[Example]] = {False: [], True: []}
            for example in found:
                sides[example.held_out].append(example)
            limits = {False: most or None, True: -(-most // 4) or None}
            own = [side[part::parts][: limits[held_out]] for held_out, side in sides.items()]
            self._examples[key] = [example for side in own for example in side]
        return self._examples[key]


def main(arguments: Sequence[str]) -> None:
    """Answer until stdin ends."""
    signal_at_parents_end(signal.SIGTERM)
    log_to_stderr()
    inbound, outbound = take_pipes()
    clients: ManyClients | None = None
    for line in inbound:
        try:
            clients = clients or ManyClients(Path(arguments[0]))
            answer = clients.do(json.loads(line))
        except FleetError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        outbound.write(json.dumps(answer).encode() + b"\n")
        outbound.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
