"""A camera and a labeller: JPEGs and labels at a steady rate, until stdin says stop.

usage: publish_stream.py RATE_HZ WIDTH HEIGHT [raw]

Every stamp is a line on stdout once its frame is published. The end of stdin ends it.
"""

import sys
import threading
import time

import cv2
import numpy as np
import rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String


def main(rate_hz: float, width: int, height: int, raw: bool) -> None:
    """Publish from the moment on that somebody listens."""
    rclpy.init(args=[])
    node = rclpy.create_node("camera")
    kind, topic = (Image, "image") if raw else (CompressedImage, "image/compressed")
    frames = node.create_publisher(kind, topic, QoSProfile(depth=100))
    labels = node.create_publisher(String, "label", QoSProfile(depth=100))
    content = cv2.resize(
        np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8),
        (width, height),
    )
    jpeg = cv2.imencode(".jpg", content)[1].tobytes()
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    while not stop.is_set() and not frames.get_subscription_count():
        time.sleep(0.01)
    due = time.monotonic()
    while not stop.is_set():
        message = kind()
        now_ns = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now_ns, 10**9)
        if raw:
            message.height, message.width, message.step = height, width, 3 * width
            message.encoding = "bgr8"
            message.data.frombytes(content.tobytes())
        else:
            message.format = "jpeg"
            message.data.frombytes(jpeg)
        frames.publish(message)
        labels.publish(String(data="clear"))
        print(now_ns, flush=True)
        due += 1 / rate_hz
        stop.wait(max(0.0, due - time.monotonic()))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), "raw" in sys.argv)
