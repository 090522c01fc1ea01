"""ServerApp: FedAvg, no evaluation by clients; notes when each round closes."""

import json
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from text_app.model import arrays_of, build

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that the run config asks for."""
    config = context.run_config
    stamps, adapter = Path(str(config["stamps"])), bool(config["adapter"])

    def close(_: int, __: ArrayRecord) -> MetricRecord:
        with stamps.open("a") as stream:
            stream.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.6f}\n")
        return MetricRecord({})

    model = build(Path(str(config["encoder"])), int(config["layers"]), adapter=adapter)
    strategy = FedAvg(
        fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=0
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=arrays_of(model, adapter=adapter),
        num_rounds=int(config["num-server-rounds"]),
        evaluate_fn=close,
    )
    metrics = {k: v for m in result.train_metrics_clientapp.values() for k, v in m.items()}
    stamps.with_suffix(".json").write_text(json.dumps(metrics))
