"""What perception_node publishes of its model and of what that finds."""

import threading
from array import array
from typing import Any

from edge_perception.perception.pipeline import Result
from edge_perception.perception.results import Output, header_of, output_for
from edge_perception_msgs.msg import ModelInfo
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage

from fleet_model.engine import TFLiteEngine

_RESULTS_DEPTH = 10
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Publications:
    """The publishers of one configured node. From any thread."""

    def __init__(self, node: Any, wanted: str, precision: str) -> None:
        """Make what no model is needed for.

        Args:
            node: remaps apply.
            wanted: one of `results.OUTPUTS`.
            precision: of every model.
        """
        self._node, self._wanted, self._precision = node, wanted, precision
        self._model_info = node.create_publisher(ModelInfo, "~/model_info", _LATCHED)
        self._debug = node.create_publisher(CompressedImage, "~/debug_image/compressed", 1)
        self._results: dict[str, tuple[Output, Any]] = {}  # by what a model answers
        self._lock = threading.Lock()
        self._closed = False

    def model_answers(self, engine: TFLiteEngine) -> None:
        """Say which model answers from now on."""
        manifest, task = engine.manifest, engine.workload.task
        if self._closed:  # it was still loading
            return
        self._output(task.answer)  # subscribers can find the topic before the first image
        info = ModelInfo(
            workload=manifest.workload.name,
            version=manifest.version,
            precision=self._precision,
            answer=task.answer,
            classes=list(task.classes),
        )
        info.header.stamp = self._node.get_clock().now().to_msg()
        self._model_info.publish(info)
        name = f"{manifest.workload.name}, {self._precision}, {engine.runtime.words}, {engine.runs}"
        self._node.get_logger().info(f"model version {manifest.version} answers ({name})")

    def send(self, result: Result) -> None:
        """Publish the results of one image, and the image with them where somebody looks."""
        output, publisher = self._output(result.engine.workload.task.answer)
        header = header_of(result.stamp_ns, result.frame_id)
        publisher.publish(output.fill(header, result.engine.manifest.version, result.found))
        if self._debug.get_subscription_count():
            picture = CompressedImage(header=header, format="jpeg", data=array("B", _drawn(result)))
            self._debug.publish(picture)

    def close(self) -> None:
        """Destroy the publishers."""
        self._closed = True
        results = [publisher for _, publisher in self._results.values()]
        for publisher in (self._model_info, self._debug, *results):
            self._node.destroy_publisher(publisher)

    def _output(self, answer: str) -> tuple[Output, Any]:
        with self._lock:
            if answer not in self._results:
                output = output_for(answer, self._wanted)
                publisher = self._node.create_publisher(
                    output.message, output.topic, _RESULTS_DEPTH
                )
                self._results[answer] = output, publisher
            return self._results[answer]


def _drawn(result: Result) -> bytes:
    from edge_agent.data.box_drawing import with_boxes
    from edge_agent.data.drawing import annotated
    from fleet_model.confusion.picture import encoded

    picture = with_boxes(result.frame.decode(), result.found)
    if whole := [one for one in result.found if one.box is None]:
        picture = annotated(picture, whole[0].label or whole[0].text, whole[0].score, "")
    return encoded(picture, ".jpg")
