"""One arm of simulate.py: `python -m benchmarks.simulated_fleets ARM ROBOTS ROUNDS`.

Every robot answers with its own multiple of one random head of 25.6 kB: as cheap as can be, and no
two alike. What is left is what the rounds cost. Prints the moment at which it is ready to begin and
those at which a round has closed: a line each that begins with MARK, for Flower prints, too.
"""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from cloud_server.simulation.learning import BIAS, KERNEL, LABELS, WIDTH
from fleet_model.types import Tensor

MARK = "moment "
CHANGE = np.random.default_rng(0).standard_normal((WIDTH, LABELS), np.float32)


def change_of(robot: int) -> dict[str, Tensor]:
    """Return what one robot has learned."""
    return {KERNEL: CHANGE * np.float32(1 + robot / 1e6), BIAS: np.zeros(LABELS, np.float32)}


def ours(robots: int, rounds: int, note: Callable[[], None]) -> None:
    """Run the round loop of `cloud-server start` with virtual robots that are always there."""
    from cloud_server.simulation.population import Traits
    from cloud_server.simulation.simulate import Simulation, SimulationPlan
    from cloud_server.state.settings import ServerSettings
    from fleet_model.protocol.wire import RobotRequest
    from fleet_model.types import Update

    def work(robot: int, request: RobotRequest) -> Update:
        version = request.checkpoint.version
        return Update(
            robot="",
            base_version=version,
            weights=change_of(robot),
            num_examples=100,
            num_steps=1,
        )

    traits = Traits(robots=robots, off=0.0, drop=0.0)
    plan = SimulationPlan(traits=traits, settings=ServerSettings(), rounds=rounds)
    simulation = Simulation(plan, work)
    note()
    for line in simulation.rounds():
        if line.accepted != robots:
            raise RuntimeError(f"{line.accepted} of {robots} updates were taken: {line.error}")
        note()


def flower_app() -> Any:
    """Return a ClientApp that answers as our virtual robots do."""
    from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        start = message.content.array_records["arrays"]
        change = change_of(int(context.node_config["partition-id"]))
        arrays = {name: Array(start[name].numpy() + delta) for name, delta in change.items()}
        content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 100})}
        return Message(RecordDict(content), reply_to=message)

    return app


def flower(robots: int, rounds: int, note: Callable[[], None]) -> None:
    """Run Flower's FedAvg over a Grid in this process, which calls the ClientApp at once."""
    from benchmarks.direct_grid import DirectGrid

    _fedavg(DirectGrid(flower_app(), robots), robots, rounds, note)


def ray(robots: int, rounds: int, note: Callable[[], None]) -> None:
    """Run Flower's own simulation: its Ray engine, an actor a core."""
    from flwr.app import Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.simulation import run_simulation

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        _fedavg(grid, robots, rounds, note)

    run_simulation(app, flower_app(), num_supernodes=robots)


def _fedavg(grid: Any, robots: int, rounds: int, note: Callable[[], None]) -> None:
    from flwr.app import Array, ArrayRecord
    from flwr.serverapp.strategy import FedAvg

    class NotedFedAvg(FedAvg):
        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> Any:
            answer = super().aggregate_train(server_round, replies)
            note()
            return answer

    strategy = NotedFedAvg(
        fraction_evaluate=0.0, min_train_nodes=robots, min_available_nodes=robots
    )
    zeros = {name: Array(np.zeros_like(tensor)) for name, tensor in change_of(0).items()}
    note()
    strategy.start(grid=grid, initial_arrays=ArrayRecord(zeros), num_rounds=rounds)


ARMS = {"ours": ours, "flower": flower, "ray": ray}

if __name__ == "__main__":
    arm, robots, rounds = sys.argv[1:]
    ARMS[arm](int(robots), int(rounds), lambda: print(f"{MARK}{time.monotonic()}", flush=True))
