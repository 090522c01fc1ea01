"""ClientApp: frames -> blocks of the frozen trunk, computed once -> model.fit of the head.

Flower starts a process for every message, so the blocks live as long as one message. With
`cached = false` the trunk answers in every step: less code, and what most examples do.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import keras
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from detector_app.data import read_yolo
from detector_app.head import TAPS, build, heat_loss, sides_loss

app = ClientApp()


class Stamps(keras.callbacks.Callback):
    """Append "PID START END" at the end of every step, as benchmarks/step_stamps does."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        self.who = f"{os.getpid()} {ticks / os.sysconf('SC_CLK_TCK'):.3f}"

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write one line."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(self.file, f"{self.who} {now:.6f}\n".encode())


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the head that the server sends on this robot's frames."""
    node, run = context.node_config, context.run_config
    chosen, labels = (
        json.loads(Path(str(node["frames"])).read_text())[k] for k in ("train", "labels")
    )
    model = keras.models.load_model(str(node["model"]), compile=False)
    trunk = keras.Model(model.input, [model.get_layer(f"norm_{tap}").output for tap in TAPS])
    trunk.trainable = False
    images, heat, sides = read_yolo(Path(str(node["data"])), chosen, labels, model.input_shape[1])
    head = build(trunk.outputs, len(labels))
    set_weights(head, message.content["arrays"])
    batch = int(run["batch-size"])
    if run["cached"]:
        inputs, trained = trunk.predict(images, batch_size=batch, verbose=0), head
        del images
    else:
        inputs = images
        trained = keras.Model(trunk.input, head(trunk(trunk.input, training=False)))
    trained.compile(
        optimizer=keras.optimizers.Adam(
            float(run["learning-rate"]), epsilon=1e-8, global_clipnorm=float(run["clip-norm"])
        ),
        loss={"heat": heat_loss, "sides": sides_loss},
        jit_compile=False,  # XLA takes longer to start than all steps of a message
    )
    stamps = [Stamps(os.environ["STEP_STAMPS"])] if "STEP_STAMPS" in os.environ else []
    history = trained.fit(
        inputs, {"heat": heat, "sides": sides}, batch_size=batch, epochs=int(run["epochs"]),
        verbose=0, callbacks=stamps,
    )  # fmt: skip
    arrays = ArrayRecord({v.path: Array(v.numpy()) for v in head.trainable_variables})
    metrics = {
        "num-examples": len(heat),
        "loss": float(history.history["loss"][-1]),
        "array-bytes": sum(len(array.data) for array in arrays.values()),
    }
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)


def set_weights(head: keras.Model, arrays: ArrayRecord) -> None:
    """Set the variables of the head, whose paths name the arrays."""
    for variable in head.trainable_variables:
        variable.assign(arrays[variable.path].numpy())
