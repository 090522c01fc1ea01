"""Departments that learn a sentiment: each client alone, all texts in one place, and together.

Sentences of vader.py in two classes. Tweets, film and Amazon reviews are departments with CLIENTS
clients each; editorials are one whose sentences nobody trains on. All arms have the trainer of the
clients, on what `cloud-server init --workload text-classifier` writes, and as many epochs over
their own sentences, ROUNDS of them with EPOCHS each:

    single     each client has a model of its own
    central    one model learns from the sentences of all
    federated  FedAvg; updates are coded and read again, as they travel

What is measured is macro F1 on TESTS sentences of each department that trains, and of the other.
Runs in an environment with PyTorch and writes what the fleet has learned to FILE:

    python -m benchmarks.text_fleet SERVER SEED CLIENT TESTS FILE
"""

import json
import sys
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.bytes_on_wire import travelled
from benchmarks.measure import say
from benchmarks.vader import read_vader
from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedavg import FedAvg
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from edge_agent.training.trainers.torch import TorchTrainer
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.compression.codec import Codec
from fleet_model.types import FLOAT32, Checkpoint, Example, TrainConfig, Update, Weights
from fleet_model.weights import write_weights

DEPARTMENTS, UNTRAINED = ("tweets", "film", "amazon"), "nyt"
CLIENTS, ROUNDS, EPOCHS = 1, 3, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Examples of one draw."""

    clients: Mapping[str, Sequence[Example]]
    test: Sequence[Example]  # of the departments that train
    untrained: Sequence[Example]  # of the other


def drawn(seed: int, client: int, tests: int) -> Texts:
    """Draw sentences without any in two places.

    Args:
        seed: of the draw.
        client: sentences of a client.
        tests: held out of each department.
    """
    clients: dict[str, Sequence[Example]] = {}
    test: list[Example] = []
    for department, sentences in read_vader().items():
        order = np.random.default_rng([seed, zlib.crc32(department.encode())])
        # The same words may be there twice: one of them is enough.
        once = {one.text.casefold(): one for one in sentences}
        shuffled = [list(once.values())[at] for at in order.permutation(len(once))]
        found = [Example(raw=one.text, key=one.key, label=one.label) for one in shuffled]
        held_out = [replace(one, held_out=True) for one in found[:tests]]
        if department == UNTRAINED:
            untrained = held_out
            continue
        test += held_out
        for number in range(CLIENTS):
            begin = tests + number * client
            clients[f"{department}-{number + 1}"] = found[begin : begin + client]
    return Texts(clients=clients, test=test, untrained=untrained)


class Fleet:
    """The clients of a draw, and a trainer for each, which keeps its features."""

    def __init__(self, server: ServerDirectory, texts: Texts, seed: int) -> None:
        """Take a draw.

        Args:
            server: as `cloud-server init` has made it.
            texts: of the clients.
            seed: of the order in which they train.
        """
        self._server, self._texts, self._seed = server, texts, seed
        spec = parse_trainer((server.model / TRAINER).read_bytes())
        self._trainers: dict[str, TorchTrainer] = defaultdict(
            lambda: TorchTrainer(spec, server.model)
        )

    @cached_property
    def _config(self) -> TrainConfig:
        settings = load_settings(self._server.settings).training.model_dump()
        return replace(TrainConfig(**settings), epochs=EPOCHS)

    @cached_property
    def _first(self) -> Checkpoint:
        return Checkpoints(self._server.checkpoints).load(0)

    def alone(self, clients: Sequence[str]) -> Checkpoint:
        """Return what one model learns from the texts of these clients."""
        made, examples = self._first, [one for c in clients for one in self._texts.clients[c]]
        for _ in range(ROUNDS):
            update = self._fit(made, examples, "+".join(clients))
            made = replace(made, version=made.version + 1, weights=_sum(made, update))
        return made

    def together(self) -> Checkpoint:
        """Return what the fleet learns."""
        made = self._first
        with tempfile.TemporaryDirectory() as states:
            for _ in range(ROUNDS):
                pairs = []
                for client, examples in self._texts.clients.items():
                    own = self._fit(made, examples, client)
                    update = travelled(Path(states, client), made, own, Codec(FLOAT32))
                    about = Contribution(robot=client, site="", examples=own.num_examples)
                    pairs.append((about, update))
                made = FedAvg().fold(made, UpdatesInMemory(pairs))
        return made

    def scores(self, made: Checkpoint) -> Mapping[str, float]:
        """Return macro F1 on the departments that train, and on the other."""
        of = {"f1": self._texts.test, "untrained_f1": self._texts.untrained}
        return {
            name: self._trainers[name].evaluate(made, texts).metrics["macro_f1"]
            for name, texts in of.items()
        }

    def _fit(self, start: Checkpoint, examples: Sequence[Example], who: str) -> Update:
        # Mixed as the agent does it: clients with equal texts do not shuffle alike.
        seed = (self._seed << 8) ^ start.version ^ zlib.crc32(who.encode())
        return self._trainers[who].fit(start, examples, replace(self._config, seed=seed))


def arms(
    fleet: Fleet, clients: Sequence[str], together: Checkpoint
) -> Mapping[str, Sequence[Mapping[str, float]]]:
    """Return the scores of each arm's models, of which "single" has one for each client."""
    found = {
        "federated": [fleet.scores(together)],
        "central": [fleet.scores(fleet.alone(clients))],
        "single": [fleet.scores(fleet.alone([client])) for client in clients],
    }
    for arm, rows in found.items():
        say(f"{arm}: " + ", ".join(f"{row['f1']:.3f}" for row in rows))
    return found


def _sum(made: Checkpoint, update: Update) -> Weights:
    return {name: w + update.weights[name] for name, w in made.weights.items()}


def main() -> None:
    """Print the scores of one seed as a line of JSON."""
    server, seed, client, tests, file = sys.argv[1:]
    texts = drawn(int(seed), int(client), int(tests))
    fleet = Fleet(ServerDirectory(Path(server)), texts, int(seed))
    together = fleet.together()
    write_weights(Path(file), together.weights)
    print(json.dumps(arms(fleet, list(texts.clients), together)), flush=True)


if __name__ == "__main__":
    main()
