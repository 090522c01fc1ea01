"""A camera driver in a process of its own: publishes serialized messages through real rclpy.

usage: publish_camera.py TOPIC TYPE RELIABILITY DURABILITY PERIOD_S FILE...

Every message goes through ROS's own deserializer and serializer. It waits for a subscriber first,
writes "sent" when all are published and then waits for the end of its standard input.
"""

import sys
import time
from pathlib import Path

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs import msg as sensor
from std_msgs import msg as std


def main():
    topic, name, reliability, durability, period_s, *files = sys.argv[1:]
    kind = getattr(sensor, name, None) or getattr(std, name)
    messages = [deserialize_message(Path(file).read_bytes(), kind) for file in files]
    rclpy.init()
    node = rclpy.create_node("camera_driver")
    qos = QoSProfile(
        depth=len(files) or 1,
        reliability=ReliabilityPolicy[reliability.upper()],
        durability=DurabilityPolicy[durability.upper()],
    )
    publisher = node.create_publisher(kind, topic, qos)
    latched = durability == "transient_local"
    say("ready")
    while not latched and messages and not publisher.get_subscription_count():
        time.sleep(0.02)
    for message in messages:
        publisher.publish(message)
        time.sleep(float(period_s))
    say("sent")
    sys.stdin.read()
    node.destroy_node()
    rclpy.try_shutdown()


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
