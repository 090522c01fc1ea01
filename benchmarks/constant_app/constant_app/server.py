"""ServerApp: FedAvg over one float32 tensor; notes when each round closes."""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the run config asks for."""
    config = context.run_config
    stamps = Path(str(config["stamps"]))

    def close(_: int, __: ArrayRecord) -> MetricRecord:
        with stamps.open("a") as stream:
            stream.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n")
        return MetricRecord({})

    share = float(config["fraction-evaluate"])  # 1.0 is the default of FedAvg
    nodes = int(config["nodes"])
    strategy = FedAvg(
        fraction_evaluate=share,
        min_evaluate_nodes=nodes if share else 0,
        min_train_nodes=nodes,
        min_available_nodes=nodes,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(int(config["parameters"]), np.float32)]),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=close,
    )
