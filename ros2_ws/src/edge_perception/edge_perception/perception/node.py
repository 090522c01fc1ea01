"""perception_node: from a camera topic to detections, by the model that the agent has installed."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
from edge_perception.diagnostics import ERROR, OK, PERIOD_S, WARN, Health
from edge_perception.input import image_topic
from edge_perception.managed_node import ManagedNode
from edge_perception.newest_message import NewestMessage
from edge_perception.perception.parameters import PERCEPTION
from edge_perception.perception.pipeline import Pipeline
from edge_perception.perception.publications import Publications
from edge_perception.perception.results import output_for
from edge_perception.process import run
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.task import Future
from std_srvs.srv import SetBool, Trigger

from fleet_model.following import FollowedModel


class PerceptionNode(ManagedNode):
    """Subscribes while it is active and enabled; follows the model while it is configured."""

    def __init__(self) -> None:
        self._unread = "0"  # images that cannot be read, when diagnostics last looked
        super().__init__("perception", PERCEPTION)
        self._enabled = True
        self._model: FollowedModel | None = None
        self._publications: Publications | None = None
        self._pipeline: Pipeline | None = None
        self._images: NewestMessage | None = None
        self._owned: list[Any] = []  # calls that destroy what was configured

    def configure(self, values: Mapping[str, Any]) -> None:
        """Load the model, or begin to wait for one; offer services and topics."""
        self._values = values
        output_for("class", values["output"])  # raises if that is not installed
        cv2.setNumThreads(values["threads"])
        self._publications = Publications(self, values["output"], values["precision"])
        self._model = FollowedModel(
            Path(values["model"]),
            values["precision"],
            values["threads"],
            self._publications.model_answers,
        )
        if self._model.problem:
            self.get_logger().error(self._model.problem)
        timer = self.create_timer(PERIOD_S, self._model.look)
        enable = self.create_service(SetBool, "~/enable", self._enable)
        # A group of its own: images are taken while its call waits for the model.
        alone = MutuallyExclusiveCallbackGroup()
        reload = self.create_service(Trigger, "~/reload_model", self._reload, callback_group=alone)
        self._owned = [
            lambda: self.destroy_timer(timer),
            lambda: self.destroy_service(enable),
            lambda: self.destroy_service(reload),
            self._model.close,
            self._publications.close,
        ]

    def activate(self) -> None:
        """Answer images."""
        assert self._model
        assert self._publications
        model = self._model
        self._pipeline = Pipeline(
            image_topic(self, self._values["image_topic"], self._values["transport"]),
            lambda: model.engine,
            self._publications.send,
            lambda: self.get_parameter("threshold").value,
            lambda: self.get_parameter("max_rate_hz").value,
        )
        if self._enabled:
            self._listen()

    def deactivate(self) -> None:
        """Answer no more images."""
        self._stop_listening()
        self._pipeline = None

    def cleanup(self) -> None:
        """Let the model go."""
        for end in self._owned:
            end()
        self._owned, self._model = [], None

    def health(self) -> Health:
        """Return what is wrong: no model before no images."""
        assert self._model
        engine = self._model.engine
        values: dict[str, object] = {
            "model version": engine.manifest.version if engine else "none",
            "model runs by": engine.runtime.words if engine else "none",
            "what answers": engine.runs if engine else "none",
            "enabled": self._enabled,
        }
        if self._images:
            topic = self._images.input
            values |= {
                "image topic": topic.topic,
                "listening to": topic.offer,
                "images received": topic.received,
                "images lost in transport": topic.lost,
                "empty deliveries": topic.empty,
                "images dropped for newer ones": self._images.dropped,
                "failures": self._images.failed,
            }
        unread = "0"
        if self._pipeline:
            values |= self._pipeline.counts()
            unread = str(values["images that cannot be read"])
        is_news, self._unread = unread not in ("0", self._unread), unread
        if self._model.problem:
            return Health(ERROR, self._model.problem, values)
        if self._images and (problem := self._images.input.problem()):
            return Health(WARN, problem, values)
        if is_news:
            return Health(WARN, f"images cannot be read: {unread}", values)
        return Health(OK, "answers images" if self._enabled else "disabled: call ~/enable", values)

    def _listen(self) -> None:
        assert self._pipeline
        topic = image_topic(self, self._values["image_topic"], self._values["transport"])
        reliability = self._values["reliability"]
        self._images = NewestMessage(self, topic, self._pipeline.take, reliability=reliability)

    def _stop_listening(self) -> None:
        if self._images:
            self._images.close()
        self._images = None

    def _enable(self, request: Any, response: Any) -> Any:
        self._enabled = bool(request.data)
        if self.active and self._enabled and not self._images:
            self._listen()
        elif not self._enabled:
            self._stop_listening()
        response.success = True
        response.message = "answers images" if self._enabled else "takes no images"
        return response

    async def _reload(self, request: Any, response: Any) -> Any:
        """Load in another thread: images are answered meanwhile."""
        del request
        model, future = self._model, Future(executor=self.executor)
        assert model

        def load() -> None:
            future.set_result(model.reload())

        threading.Thread(target=load, name="reload-model", daemon=True).start()
        problem = await future
        response.success = not problem
        engine = model.engine  # none where the node was cleaned up meanwhile
        version = engine.manifest.version if engine else "none"
        response.message = problem or f"version {version} answers now"
        return response


def main() -> int:
    """Run until a signal comes."""
    return run(PerceptionNode)
