"""Publish the messages of a bag's one topic as a camera driver does: at a rate, each once.

usage: python play_bag.py BAG TOPIC {reliable|best_effort} RATE_HZ [SUBSCRIBERS]
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from sensor_msgs import msg

SETTLE_S = 1.0  # best-effort images go nowhere until the subscriber, too, knows of the other side
RELIABILITIES = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}


def main(bag: str, topic: str, reliability: str, rate_hz: str, subscribers: str = "1") -> None:
    with AnyReader([Path(bag)], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        messages = [(connection.msgtype, raw) for connection, _, raw in reader.messages()]
    kind = getattr(msg, messages[0][0].rpartition("/")[2])
    rclpy.init()
    node = rclpy.create_node("camera_driver")
    publisher = node.create_publisher(
        kind, topic, QoSProfile(depth=100, reliability=RELIABILITIES[reliability])
    )
    while publisher.get_subscription_count() < int(subscribers):
        time.sleep(0.02)
    time.sleep(SETTLE_S)
    begun, late = time.monotonic(), 0.0
    for number, (_, raw) in enumerate(messages):
        wait_s = begun + number / float(rate_hz) - time.monotonic()
        late = max(late, -wait_s)
        time.sleep(max(0.0, wait_s))
        publisher.publish(bytes(raw))
    print(f"published {len(messages)}, {late * 1e3:.0f} ms late at most", flush=True)  # noqa: T201
    sys.stdin.read()  # who has not read the last ones yet still can
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        main(*sys.argv[1:])
