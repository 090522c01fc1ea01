"""Publish a bag's frames and labels as a robot does: now, at a rate.

usage: python publish_labelled.py BAG RATE_HZ SUBSCRIBERS
"""

import struct
import sys
import time
from pathlib import Path

import rclpy
from rclpy.qos import QoSProfile
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

TYPES = {"sensor_msgs/msg/CompressedImage": CompressedImage, "std_msgs/msg/String": String}


def main(bag: str, rate_hz: str, subscribers: str) -> None:
    """Begin when that many listen to the frames, and end when stdin does."""
    rclpy.init(args=[])
    node = rclpy.create_node("robot")
    with AnyReader([Path(bag)]) as reader:
        publishers = {
            c.topic: node.create_publisher(TYPES[c.msgtype], c.topic, QoSProfile(depth=100))
            for c in reader.connections
        }
        frames = {c.topic for c in reader.connections if TYPES[c.msgtype] is CompressedImage}
        while any(publishers[t].get_subscription_count() < int(subscribers) for t in frames):
            time.sleep(0.02)
        due = time.monotonic()
        for connection, _, raw in reader.messages():
            message = bytearray(raw)
            if connection.topic in frames:
                time.sleep(max(0.0, due - time.monotonic()))
                due += 1 / float(rate_hz)
                struct.pack_into("<iI", message, 4, *divmod(time.time_ns(), 10**9))
            publishers[connection.topic].publish(bytes(message))
    print("published", flush=True)
    sys.stdin.read()
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
