"""A camera at a steady rate that also hears the answers: how old is each when it arrives?

usage: python -m benchmarks.ros_camera RESULTS raw|compressed RATE_HZ SECONDS PID FILE.jpg...

One process stamps and hears, so there is one clock. Pictures are made before and sent as they are.
The first second is not counted. Prints one line of JSON: a `Look`.
"""

import json
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

NS_PER_S = 1_000_000_000
WARM_S = 1.0  # before anything is counted
LAST_S = 2.0  # that answers may take after the last picture
PATIENCE_S = 60.0  # until the node is found


@dataclass(frozen=True)
class Look:
    """What was seen of one node at one rate, the first second left out."""

    sent_hz: float
    answered_hz: float
    cpu_share: float  # of one core, by the node's process
    latency_ms: list[float]  # header stamp to arrival of the answer, of every answer


def main() -> None:
    """Send, hear, print."""
    import rclpy
    from edge_perception_msgs.msg import Predictions
    from rclpy.executors import SingleThreadedExecutor

    results, transport, rate_hz, seconds, pid, *files = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("camera")
    heard: list[tuple[int, int]] = []  # (stamp, arrival), ns
    node.create_subscription(
        Predictions, results, lambda m: heard.append((_ns(m.header.stamp), time.time_ns())), 1000
    )
    messages = [_message(transport, Path(file)) for file in files]
    topic = "image" if transport == "raw" else "image/compressed"
    publisher = node.create_publisher(type(messages[0]), topic, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ended = threading.Event()
    hearing = threading.Thread(target=_hear, args=(executor, ended), daemon=True)
    hearing.start()
    _wait_for_the_node(node, publisher, results)
    process = psutil.Process(int(pid))
    send = partial(_send, publisher, messages, float(rate_hz))
    send(WARM_S)
    begin_ns, begin_cpu_s = time.time_ns(), _cpu_s(process)
    sent = send(float(seconds))
    end_ns, end_cpu_s = time.time_ns(), _cpu_s(process)
    time.sleep(LAST_S)
    elapsed_s = (end_ns - begin_ns) / NS_PER_S
    look = Look(
        sent_hz=sent / elapsed_s,
        answered_hz=sum(begin_ns <= at <= end_ns for _, at in heard) / elapsed_s,
        cpu_share=(end_cpu_s - begin_cpu_s) / elapsed_s,
        latency_ms=[(at - stamp) / 1e6 for stamp, at in heard if stamp >= begin_ns],
    )
    print(json.dumps(asdict(look)), flush=True)
    ended.set()
    hearing.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


def _send(publisher: Any, messages: Sequence[Any], rate_hz: float, seconds: float) -> int:
    """Publish evenly for so long; return how many."""
    begin_s, count = time.monotonic(), 0
    while count < rate_hz * seconds:
        message = messages[count % len(messages)]
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = divmod(time.time_ns(), NS_PER_S)
        publisher.publish(message)
        count += 1
        time.sleep(max(0.0, begin_s + count / rate_hz - time.monotonic()))
    return count


def _hear(executor: Any, ended: threading.Event) -> None:
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.1)


def _message(transport: str, file: Path) -> Any:
    from sensor_msgs.msg import CompressedImage, Image

    if transport == "compressed":
        return CompressedImage(format="jpeg", data=array("B", file.read_bytes()))
    import cv2

    picture = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
    height, width, _ = picture.shape
    data = array("B", picture.tobytes())
    return Image(encoding="rgb8", height=height, width=width, step=3 * width, data=data)


def _wait_for_the_node(node: Any, publisher: Any, results: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not (publisher.get_subscription_count() and node.count_publishers(results)):
        if time.monotonic() > end_s:
            raise TimeoutError(f"no node that hears {publisher.topic_name} and answers {results}")
        time.sleep(0.05)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _ns(stamp: Any) -> int:
    return int(stamp.sec * NS_PER_S + stamp.nanosec)


if __name__ == "__main__":
    main()
