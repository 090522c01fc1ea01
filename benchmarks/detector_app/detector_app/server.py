"""ServerApp: FedAvg over the head, no evaluation by clients; notes when each round closes."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the run config asks for; write the last head beside the stamps."""
    config = context.run_config
    stamps = Path(str(config["stamps"]))

    def close(_: int, __: ArrayRecord) -> MetricRecord:
        with stamps.open("a") as stream:
            stream.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n")
        return MetricRecord({})

    with np.load(str(config["head"])) as first:
        arrays = ArrayRecord({name: Array(first[name]) for name in first})
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=0
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays,
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=close,
    )
    np.savez(stamps.with_suffix(".npz"), **{n: a.numpy() for n, a in result.arrays.items()})
    metrics = {k: v for m in result.train_metrics_clientapp.values() for k, v in m.items()}
    stamps.with_suffix(".json").write_text(json.dumps(metrics))
