"""Departments that learn a sentiment: each client alone, all texts in one place, and together.

Sentences of vader.py in two classes. Tweets, film and Amazon reviews are departments with CLIENTS
clients each; editorials are one whose sentences nobody trains on. All arms have the trainer of the
clients, on what `cloud-server init --workload text-classifier` writes, and as many epochs over
their own sentences, ROUNDS of them with EPOCHS each. Each has the learning rate that suits it
(RATES): the steps of one model follow each other, those of a fleet's clients are averaged.

    single     each client has a model of its own
    central    one model learns from the sentences of all
    federated  FedAvg; updates are coded and read again, as they travel

What is measured is macro F1 on TESTS sentences of each department that trains, and of the other.
Runs in an environment with PyTorch and writes what the fleet has learned to FILE:

    python -m benchmarks.text_fleet SERVER SEED CLIENT TESTS FILE

Rates are chosen by other sentences, which nobody trains on and no test has: VALIDATION of each
department that trains. What each arm has of them at each rate:

    python -m benchmarks.text_fleet SERVER SEED CLIENT TESTS --rates RATE...
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
from statistics import mean

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
CLIENTS, ROUNDS, EPOCHS = 1, 3, 1
RATES = {"federated": 0.0005, "central": 0.0005, "single": 0.0002}  # of Adam
VALIDATION = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Examples of one draw."""

    clients: Mapping[str, Sequence[Example]]
    test: Sequence[Example]  # of the departments that train
    untrained: Sequence[Example]  # of the other


def drawn(seed: int, client: int, tests: int, validation: int = 0) -> Texts:
    """Draw sentences without any in two places.

    Args:
        seed: of the draw.
        client: sentences of a client.
        tests: held out of each department.
        validation: in place of the tests so many others of each department that trains.

    Raises:
        ValueError: there are not so many sentences.
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
        if len(found) < (needed := tests + CLIENTS * client + validation):
            raise ValueError(f"{department} has {len(found)} sentences, {needed} are needed")
        test += (
            [replace(one, held_out=True) for one in found[-validation:]] if validation else held_out
        )
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

    @property
    def clients(self) -> Sequence[str]:
        """Return their names."""
        return list(self._texts.clients)

    @cached_property
    def _first(self) -> Checkpoint:
        return Checkpoints(self._server.checkpoints).load(0)

    def alone(self, clients: Sequence[str], rate: float) -> Checkpoint:
        """Return what one model learns from the texts of these clients."""
        made, examples = self._first, [one for c in clients for one in self._texts.clients[c]]
        for _ in range(ROUNDS):
            update = self._fit(made, examples, "+".join(clients), rate)
            made = replace(made, version=made.version + 1, weights=_sum(made, update))
        return made

    def together(self, rate: float) -> Checkpoint:
        """Return what the fleet learns."""
        made = self._first
        with tempfile.TemporaryDirectory() as states:
            for _ in range(ROUNDS):
                pairs = []
                for client, examples in self._texts.clients.items():
                    own = self._fit(made, examples, client, rate)
                    update = travelled(Path(states, client), made, own, Codec(FLOAT32))
                    about = Contribution(robot=client, site="", examples=own.num_examples)
                    pairs.append((about, update))
                made = FedAvg().fold(made, UpdatesInMemory(pairs))
        return made

    def scores(self, made: Checkpoint) -> Mapping[str, float]:
        """Return macro F1 on the departments that train, and on the other."""
        return {"f1": self.f1(made), "untrained_f1": self.f1(made, trained=False)}

    def f1(self, made: Checkpoint, *, trained: bool = True) -> float:
        """Return macro F1 on the sentences held out of the departments that train, or the other."""
        texts = self._texts.test if trained else self._texts.untrained
        return self._trainers[f"trained={trained}"].evaluate(made, texts).metrics["macro_f1"]

    def _fit(self, start: Checkpoint, examples: Sequence[Example], who: str, rate: float) -> Update:
        # Mixed as the agent does it: clients with equal texts do not shuffle alike.
        seed = (self._seed << 8) ^ start.version ^ zlib.crc32(who.encode())
        config = replace(self._config, seed=seed, learning_rate=rate)
        return self._trainers[who].fit(start, examples, config)


def arms(fleet: Fleet, together: Checkpoint) -> Mapping[str, Sequence[Mapping[str, float]]]:
    """Return the scores of each arm's models, of which "single" has one for each client."""
    found = {
        "federated": [fleet.scores(together)],
        "central": [fleet.scores(fleet.alone(fleet.clients, RATES["central"]))],
        "single": [fleet.scores(fleet.alone([one], RATES["single"])) for one in fleet.clients],
    }
    for arm, rows in found.items():
        say(f"{arm}: " + ", ".join(f"{row['f1']:.3f}" for row in rows))
    return found


def at_rate(fleet: Fleet, rate: float) -> Mapping[str, float]:
    """Return macro F1 of each arm at a rate; of single clients the mean."""
    return {
        "rate": rate,
        "federated": fleet.f1(fleet.together(rate)),
        "central": fleet.f1(fleet.alone(fleet.clients, rate)),
        "single": mean(fleet.f1(fleet.alone([one], rate)) for one in fleet.clients),
    }


def _sum(made: Checkpoint, update: Update) -> Weights:
    return {name: w + update.weights[name] for name, w in made.weights.items()}


def main() -> None:
    """Print the scores of one seed as a line of JSON, or a line for each rate."""
    server, seed, client, tests, file, *rates = sys.argv[1:]
    validation = VALIDATION if file == "--rates" else 0
    texts = drawn(int(seed), int(client), int(tests), validation)
    fleet = Fleet(ServerDirectory(Path(server)), texts, int(seed))
    for rate in rates:
        print(json.dumps(at_rate(fleet, float(rate))), flush=True)
    if not validation:
        together = fleet.together(RATES["federated"])
        write_weights(Path(file), together.weights)
        print(json.dumps(arms(fleet, together)), flush=True)


if __name__ == "__main__":
    main()
