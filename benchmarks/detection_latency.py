"""One frame through a detector, one thread: the robot's engine, and the same model in Keras.

usage: python -m benchmarks.detection_latency SERVER_DIR BUNDLE [FRAMES]

From the picture in the square to boxes, scores and classes, in every arm; decoding and scaling the
frame are no part of it. All arms in one process, called in turn, a frame of noise:

    int8, fp32     `TFLiteEngine`, LiteRT's Interpreter
    tf_function    model and boxes of it under one tf.function
    predict        `model.predict`, and boxes of it under a tf.function: its overhead is in there

The last line is JSON: milliseconds, the median of the calls.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bare_inference import Ask, timed
from benchmarks.measure import median

WARM = 5  # calls that are not measured


def main() -> None:
    """Measure and print."""
    server_dir, bundle = Path(sys.argv[1]), Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    asks = {**engines(bundle), **keras_arms(server_dir)}
    print(json.dumps(milliseconds(asks, count)))


def milliseconds(asks: Mapping[str, Ask], count: int) -> dict[str, float]:
    """Return the median of each; they are called one after the other, in turn."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(WARM + count):
        names = list(asks) if number % 2 else list(asks)[::-1]
        for name in names:
            (second,) = timed(asks[name], 0, 1)
            if number >= WARM:
                found[name].append(second * 1e3)
    return {name: median(values) for name, values in found.items()}


def engines(bundle: Path) -> dict[str, Ask]:
    """Return what asks the robot's engine."""
    from fleet_model.engine import TFLiteEngine

    asks: dict[str, Ask] = {}
    for precision in ("int8", "fp32"):
        engine = TFLiteEngine(bundle, precision, num_threads=1)
        inputs = {"image": picture(engine.workload.image_size)}
        asks[precision] = lambda e=engine, i=inputs: e.run(i)
    return asks


def keras_arms(server_dir: Path) -> dict[str, Ask]:
    """Return what asks Keras, with the tensors of the server's first version."""
    import tensorflow as tf

    from cloud_server.state.checkpoints import Checkpoints
    from cloud_server.state.directory import ServerDirectory
    from fleet_model.bundle import TRAINER, parse_trainer
    from fleet_model.workload import rebuild
    from fleet_model.workloads.object_detector.keras_model import ObjectDetectorModel

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    made = ServerDirectory(server_dir)
    workload = rebuild(parse_trainer((made.model / TRAINER).read_bytes()).workload)
    definition = ObjectDetectorModel(workload)
    model = definition.build()
    weights = Checkpoints(made.checkpoints).load(0).weights
    for variable in model.trainable_variables:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    size = workload.image_size
    image = picture(size)[None]
    spec = tf.TensorSpec((1, size, size, 3), tf.float32)

    @tf.function(input_signature=[spec])
    def whole(batch: Any) -> Any:
        return definition.answer(model(batch, training=False))

    boxes = tf.function(definition.answer)

    def arrays(answer: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in answer.items()}

    return {
        "tf_function": lambda: arrays(whole(image)),
        "predict": lambda: arrays(boxes(model.predict(image, verbose=0))),
    }


def picture(size: int) -> Any:
    """Return noise, (size, size, 3) float32 0..255."""
    return np.random.default_rng(0).uniform(0, 255, (size, size, 3)).astype(np.float32)


if __name__ == "__main__":
    main()
