"""Say on /diagnostics how a node is: one status, every second."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

OK, WARN, ERROR = 0, 1, 2
PERIOD_S = 1.0


class Health(NamedTuple):
    """How a node is."""

    level: int  # OK, WARN or ERROR
    message: str  # what is wrong and what to do next; in a few words what it does where all is well
    values: Mapping[str, object]  # counts and names, shown as text


class Diagnostics:
    """Publishes what `measure` says as long as it is not closed."""

    def __init__(self, node: Any, measure: Callable[[], Health]) -> None:
        """Begin; `measure` is called in the node's executor."""
        from diagnostic_msgs.msg import DiagnosticArray

        self._node, self._measure = node, measure
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(PERIOD_S, self.publish)

    def publish(self) -> None:
        """Say it now."""
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        level, message, values = self._measure()
        status = DiagnosticStatus(
            level=bytes([level]),
            name=self._name,
            message=message,
            hardware_id=self._name,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def close(self) -> None:
        """Say it once more, unless a signal has ended ROS, then nothing."""
        if self._node.context.ok():
            self.publish()
        self._node.destroy_timer(self._timer)
        self._node.destroy_publisher(self._publisher)
