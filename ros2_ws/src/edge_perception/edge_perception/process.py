"""Run one node as a process: one line for what is wrong, a clean end at SIGINT and SIGTERM."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fleet_model.errors import FleetError, SettingsError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 64 * 2**20  # half of it is the most that glibc allows for one allocation


def run(make_node: Callable[[], Any], args: Sequence[str] | None = None) -> int:
    """Spin a node until a signal ends the process; return its exit code.

    Args:
        make_node: makes the node. It may have `start()`, which is called before the first spin, and
            `stop()`, which ends its threads and is called before it is destroyed.
        args: of the command line; None takes the process's own.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.impl.implementation_singleton import rclpy_implementation

    _keep_freed_memory()
    try:
        rclpy.init(args=args)
    except rclpy_implementation.RCLError as error:
        print(_line_on_arguments(error), file=sys.stderr)
        return SettingsError.exit_code
    node, executor = None, SingleThreadedExecutor()
    try:
        node = make_node()
        executor.add_node(node)
        _log_through(node)
        if hasattr(node, "start"):
            node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception as error:
        if not rclpy.ok():  # the signal came in the middle of a call, which fails in its own way
            return 0
        line = _line(error)
        if not line:
            raise
        print(line, file=sys.stderr)
        return getattr(error, "exit_code", SettingsError.exit_code)
    finally:
        _end(node, executor)
        rclpy.try_shutdown()
    return 0


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of a picture for the next one.

    By default it is given back after each picture, and every page is a fault the next time.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _end(node: Any, executor: Any) -> None:
    if node and hasattr(node, "stop"):
        node.stop()
    executor.shutdown()
    if node:
        node.destroy_node()


def _line(error: Exception) -> str:
    """Return what a user did wrong in one line; "" for a defect, which keeps its traceback."""
    from rclpy import exceptions

    names = ("InvalidParameterTypeException", "InvalidParameterValueException")
    wrong = tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name))
    if isinstance(error, (FleetError, *wrong)):
        return f"{_program()}: {' '.join(str(error).split())}"
    return ""


def _line_on_arguments(error: Exception) -> str:
    """Return what ROS cannot read of the command line, and how it is written."""
    text = str(error).partition(", at /")[0]  # the rest is lines of rcl's source
    what, _, why = text.removeprefix("failed to initialize rcl: ").partition(". Error: ")
    if "lexeme" in why or "event" in why:  # the words of its parsers
        why = "it has another form"
    return (
        f"{_program()}: {what}{': ' * bool(why)}{why}; write -p NAME:=VALUE, or --params-file with "
        "a file of NODE, below it ros__parameters, below it NAME: VALUE, indented with spaces"
    )


def _program() -> str:
    return sys.argv[0].rpartition("/")[2]


def _log_through(node: Any) -> None:
    """Let the lines of fleet_model and edge_agent go where the node's own go."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say, text = node.get_logger(), record.getMessage()
            if record.levelno >= logging.ERROR:  # rclpy allows one level for each line of code
                say.error(text)
            elif record.levelno >= logging.WARNING:
                say.warning(text)
            else:
                say.info(text)

    handler = Handler()
    for name in ("fleet_model", "edge_agent", "edge_perception"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
