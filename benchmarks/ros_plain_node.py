"""A perception node written the obvious way, the peer of benchmarks/ros_latency.py.

Everything happens in the callback of a subscription with a queue of 10: decode the whole picture,
resize it, run the model, publish. The model, its precision and its one thread are ours.

usage: python -m benchmarks.ros_plain_node BUNDLE raw|compressed
"""

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from ai_edge_litert.interpreter import Interpreter
from edge_perception_msgs.msg import Prediction, Predictions
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from fleet_model.bundle import read_bundle

QUEUE_DEPTH = 10


class PlainNode(Node):
    """Answers every picture that is in the queue, one after the other."""

    def __init__(self, bundle: Path, transport: str) -> None:
        super().__init__("plain_node")
        manifest = read_bundle(bundle, names=())
        self.labels = manifest.labels
        self.size = manifest.described_task.inputs["image"].shape[0]
        self.stages = []
        for name in manifest.engines["fp32"]:
            interpreter = Interpreter(str(bundle / name), num_threads=1)
            interpreter.allocate_tensors()
            self.stages.append(interpreter)
        self.publisher = self.create_publisher(Predictions, "~/predictions", QUEUE_DEPTH)
        kind, topic, callback = {
            "raw": (Image, "image", self.on_image),
            "compressed": (CompressedImage, "image/compressed", self.on_compressed),
        }[transport]
        self.create_subscription(kind, topic, callback, QUEUE_DEPTH)

    def on_compressed(self, message: CompressedImage) -> None:
        """Decode and answer."""
        picture = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
        self.answer(message.header, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))

    def on_image(self, message: Image) -> None:
        """Answer a raw picture; it is rgb8 without padding."""
        flat = np.frombuffer(message.data, np.uint8)
        self.answer(message.header, flat.reshape(message.height, message.width, 3))

    def answer(self, header: Any, picture: Any) -> None:
        """Resize, run the model, publish the best class."""
        value = cv2.resize(picture, (self.size, self.size)).astype(np.float32)[None]
        for stage in self.stages:
            stage.set_tensor(stage.get_input_details()[0]["index"], value)
            stage.invoke()
            value = stage.get_tensor(stage.get_output_details()[0]["index"])
        scores = np.exp(value[0] - value[0].max())
        best = int(scores.argmax())
        score = float(scores[best] / scores.sum())
        found = Prediction(label=self.labels[best], score=score)
        self.publisher.publish(Predictions(header=header, predictions=[found]))


def main() -> None:
    """Run until a signal comes."""
    rclpy.init()
    node = PlainNode(Path(sys.argv[1]), sys.argv[2])
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
