"""Publish a camera, a video, a bag or a folder of pictures as a camera driver would."""

import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from edge_perception.camera.calibration import Calibration, read_calibration
from edge_perception.camera.image_data import jpeg_data, raw_data
from edge_perception.camera.parameters import CAMERA
from edge_perception.camera.player import UNTIMED_HZ, Pace, Player
from edge_perception.camera.source import CameraSource
from edge_perception.diagnostics import ERROR, OK, WARN, Health
from edge_perception.input import TRANSPORTS, image_topic
from edge_perception.managed_node import ManagedNode
from edge_perception.process import run
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from fleet_model.types import NS_PER_S, Frame

_TEND_S = 0.1
_WORRY_S = 3.0  # without a picture of a camera


class _Ready(NamedTuple):
    """Messages of one picture, but for their headers."""

    image: Image | None
    compressed: CompressedImage | None
    info: CameraInfo


class CameraNode(ManagedNode):
    """Plays its source while it is active; at the end of a recording it deactivates itself."""

    def __init__(self) -> None:
        """Declare the parameters; raises what `declare` raises."""
        self._values: Mapping[str, Any] = {}
        self._calibration: Calibration | None = None
        self._player: Player[_Ready] | None = None
        self._infos: dict[tuple[int, int], CameraInfo] = {}
        self._image: Any = None  # publishers
        self._compressed: Any = None
        self._info: Any = None
        self._tending: Any = None
        self._is_live = self._waits = False
        self._told = ""  # the problem of a camera that the log has
        self._last_s = 0.0  # when a picture was sent
        self._before = (0.0, 0)  # the last look of diagnostics: when, pictures sent until then
        super().__init__("camera", CAMERA)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Look whether the source can be played, and offer the topics."""
        self._values = values
        CameraSource(values["source"], values["topic"])
        place = values["calibration"]
        self._calibration = read_calibration(place) if place else None
        self._infos.clear()
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy[values["reliability"].upper()])
        raw, compressed = (image_topic(self, "image", transport) for transport in TRANSPORTS)
        if values["transports"] != "compressed":
            self._image = self.create_publisher(Image, raw, qos)
        if values["transports"] != "raw":
            self._compressed = self.create_publisher(CompressedImage, compressed, qos)
        self._info = self.create_publisher(CameraInfo, self._info_topic(raw), qos)

    def cleanup(self) -> None:
        """Take the topics back."""
        for publisher in self._offered():
            self.destroy_publisher(publisher)
        self._image = self._compressed = self._info = None

    def activate(self) -> None:
        """Play from the beginning."""
        values = self._values
        source = CameraSource(values["source"], values["topic"])
        if not source.has_times and not values["rate_hz"]:
            self.get_logger().info(f"{source.name}: its files have no times, {UNTIMED_HZ:g} Hz")
        pace = Pace(**{name: values[name] for name in ("speed", "rate_hz", "loop", "retry_s")})
        self._player = Player(source, pace, self._make, self._send)
        self._is_live = source.is_live
        self._waits = not source.is_live and values["wait_for_subscribers"] > 0
        self._last_s = time.monotonic()
        self._tending = self.create_timer(_TEND_S, self._tend)
        if not self._waits:
            self._player.start()

    def deactivate(self) -> None:
        """End the pictures; the topics stay."""
        if self._player:
            self._player.stop()
        if self._tending:
            self.destroy_timer(self._tending)
        self._player = self._tending = None

    def health(self) -> Health:
        """Return what is wrong: with the source, or that a camera is silent."""
        player, now_s = self._player, time.monotonic()
        if player is None:
            return Health(OK, "", {})
        before_s, before = self._before
        self._before = now_s, player.sent
        rate_hz = max(0, player.sent - before) / max(now_s - before_s, 1e-3)
        values = {"source": player.name, "pictures a second": f"{rate_hz:.1f}", **player.counts()}
        if player.problem:
            return Health(ERROR, player.problem, values)
        if self._waits:
            needed = self._values["wait_for_subscribers"]
            return Health(OK, f"waits for {needed} subscribers, has {self._subscribers()}", values)
        silent_s = now_s - self._last_s
        if self._is_live and silent_s > _WORRY_S:
            why = f": {player.outage}; trying again" if player.outage else "; is it running?"
            return Health(WARN, f"{player.name}: no picture for {silent_s:.0f} s{why}", values)
        return Health(OK, f"plays {player.name}", values)

    def _info_topic(self, image: str) -> str:
        """Return where drivers publish it: beside the image, unless it is remapped itself."""
        name = self.resolve_topic_name("camera_info")
        remapped = name != self.resolve_topic_name("camera_info", only_expand=True)
        return name if remapped else f"{image.rpartition('/')[0]}/camera_info"

    def _offered(self) -> list[Any]:
        return [one for one in (self._info, self._compressed, self._image) if one]

    def _subscribers(self) -> int:
        return sum(one.get_subscription_count() for one in self._offered())

    def _tend(self) -> None:
        """Begin when somebody listens; become inactive at the end of a recording."""
        player = self._player
        if player is None:
            return
        if self._waits:
            if self._subscribers() >= self._values["wait_for_subscribers"]:
                self._waits = False
                player.start()
        elif self._is_live:
            if player.problem not in ("", self._told):
                self.get_logger().error(f"{player.problem}; it is asked again")
            self._told = player.problem
        elif player.ended:
            say = self.get_logger().error if player.problem else self.get_logger().info
            counts = ", ".join(f"{name} {value}" for name, value in player.counts().items())
            say(f"{player.problem or f'{player.name}: end of the recording'}; {counts}")
            self.trigger_deactivate()

    # The player's thread calls these two.

    def _make(self, frame: Frame) -> _Ready:
        """Fill the messages that somebody listens to; raises FrameError."""
        image = compressed = None
        if self._compressed and self._compressed.get_subscription_count():
            quality = self.get_parameter("jpeg_quality").value
            compressed = CompressedImage(format="jpeg", data=jpeg_data(frame, quality))
        if self._image and self._image.get_subscription_count():
            encoding, height, width, step, data = raw_data(frame)
            image = Image(encoding=encoding, height=height, width=width, step=step, data=data)
        return _Ready(image, compressed, self._camera_info(frame.width, frame.height))

    def _send(self, ready: _Ready, frame: Frame) -> None:
        stamp_ns = frame.stamp_ns
        if self._values["stamps"] == "now" and not self._is_live:
            stamp_ns = self.get_clock().now().nanoseconds
        seconds, nanoseconds = divmod(stamp_ns, NS_PER_S)
        for publisher, message in (
            (self._info, ready.info),
            (self._compressed, ready.compressed),
            (self._image, ready.image),
        ):
            if message is not None:
                header = message.header
                header.stamp.sec, header.stamp.nanosec = seconds, nanoseconds
                header.frame_id = self._values["frame_id"]
                publisher.publish(message)
        self._last_s = time.monotonic()

    def _camera_info(self, width: int, height: int) -> CameraInfo:
        """Return the message of pictures of this size: made once, as its numbers stay."""
        info = self._infos.get((width, height))
        if info is None:
            info = CameraInfo(width=width, height=height)
            found = self._calibration
            if found and (found.width, found.height) == (width, height):
                info.distortion_model = found.distortion_model
                info.d, info.k, info.r, info.p = found.d, found.k, found.r, found.p
            elif found:
                self.get_logger().error(
                    f"the calibration is for {found.width} x {found.height} pixels and is not used "
                    f"for these pictures of {width} x {height}"
                )
            self._infos[width, height] = info
        return info


def main() -> int:
    """Run until a signal comes."""
    return run(CameraNode)


if __name__ == "__main__":
    sys.exit(main())
