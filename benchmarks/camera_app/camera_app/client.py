"""ClientApp: bag -> frames -> features of the frozen trunk, computed once -> model.fit of the head.

Flower starts a process for every message, so the features live as long as one message. What a robot
needs to know about itself comes from its node config: bag and model.
"""

import os
import time
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

IMAGE_TOPIC, LABEL_TOPIC = "/camera/image/compressed", "/camera/label"
LABELS = ("circle", "square", "star", "triangle")
HELD_OUT = 5  # every fifth frame is not trained on

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


def read_bag(path: Path, size: int) -> tuple[Any, Any]:
    """Return images (n, size, size, 3) float32 RGB 0..255 and their classes (n,)."""
    jpegs, answers = [], []
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        for connection, stamp, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            if connection.topic == IMAGE_TOPIC:
                jpegs.append((stamp, message.data))
            elif connection.topic == LABEL_TOPIC:
                answers.append((stamp, message.data))
    stamps = np.array([stamp for stamp, _ in answers])
    nearest = [int(np.abs(stamps - stamp).argmin()) for stamp, _ in jpegs]
    images = np.stack([square(jpeg, size) for _, jpeg in jpegs]).astype(np.float32)
    return images, np.array([LABELS.index(answers[i][1]) for i in nearest], np.int32)


def square(jpeg: Any, size: int) -> Any:
    """Decode, cut the centred square, scale."""
    image = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = image[top : top + side, left : left + side]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the head that the server sends on this robot's frames."""
    node, run = context.node_config, context.run_config
    model = keras.models.load_model(str(node["model"]), compile=False)
    trunk = keras.Model(model.input, model.get_layer("head").input)
    images, targets = read_bag(Path(str(node["bag"])), model.input_shape[1])
    chosen = np.arange(len(images)) % HELD_OUT != 0
    batch = int(run["batch-size"])
    features = trunk.predict(images[chosen], batch_size=batch, verbose=0)  # (n, 1280)

    head = keras.Sequential([keras.Input(features.shape[1:]), model.get_layer("head")])
    head.set_weights(message.content["arrays"].to_numpy_ndarrays())
    head.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # XLA takes 0.5 s more to start and 0.2 ms more for a step
    )
    stamps = [Stamps(os.environ["STEP_STAMPS"])] if "STEP_STAMPS" in os.environ else []
    history = head.fit(
        features, targets[chosen], batch_size=batch, epochs=int(run["epochs"]), verbose=0,
        callbacks=stamps,
    )  # fmt: skip
    arrays = ArrayRecord(head.get_weights())
    metrics = {
        "num-examples": int(chosen.sum()),
        "loss": float(history.history["loss"][-1]),
        "array-bytes": sum(len(array.data) for array in arrays.values()),
        "model-bytes": sum(weight.nbytes for weight in model.get_weights()),
    }
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)
