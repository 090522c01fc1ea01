"""A robot's ROS processes, and a node of the test that listens to them."""

import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

PLAYER = Path(__file__).with_name("play_bag.py")
PATIENCE_S = 240.0


def until(holds, what):
    """Wait until holds() is true; what() says why it is not. A busy machine may take its time."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"it did not come in time: {str(what())[-2000:]}"
        time.sleep(0.02)


class Processes:
    """Starts programs of the workspace; every one of them is gone at the end."""

    def __init__(self, workspace):
        self.environment = dict(os.environ)
        self._programs = workspace / "install/edge_perception/lib/edge_perception"
        self._started = []

    def node(self, program, *words, parameters=()):
        """Start a node with remaps and other words, and parameters as name -> YAML text."""
        given = [word for name, value in parameters for word in ("-p", f"{name}:={value}")]
        return self.command([self._programs / program, "--ros-args", *words, *given])

    def player(self, bag, topic, reliability, rate_hz):
        return self.command([PLAYER, bag, topic, reliability, rate_hz])

    def command(self, command):
        """Start a Python program, whose lines become its `log`."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=self.environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        process.log = []  # both streams, line by line
        for stream in (process.stdout, process.stderr):
            threading.Thread(target=process.log.extend, args=(stream,), daemon=True).start()
        self._started.append(process)
        return process

    def close(self):
        for process in self._started:
            with suppress(OSError):
                process.stdin.close()
            process.kill()
            process.wait()


class Listener:
    """A node with its own context, spun by a thread."""

    def __init__(self):
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.node import Node

        self._context = Context()
        self._context.init([])
        self.node = Node("listener", context=self._context, use_global_arguments=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self):
        from rclpy.executors import ExternalShutdownException

        with suppress(ExternalShutdownException):
            self._executor.spin()

    def collect(self, message, topic, qos=100):
        """Return a list that fills with what is published."""
        found = []
        self.node.create_subscription(message, topic, found.append, qos)
        return found

    def call(self, kind, name, request):
        """Return the answer of a service."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_S)
        future = client.call_async(request)
        until(future.done, lambda: f"{name} does not answer")
        self.node.destroy_client(client)
        return future.result()

    def close(self):
        self._context.try_shutdown()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def values_of(diagnostics):
    """Return (level, message, values by key) of the newest status."""
    status = diagnostics[-1].status[0]
    return status.level[0], status.message, {v.key: v.value for v in status.values}
