"""A lifecycle node whose failures are told: in the log, and on /diagnostics as long as it lives."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_perception.diagnostics import ERROR, OK, WARN, Diagnostics, Health
from edge_perception.parameters import ParameterSpec, declare, read
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from fleet_model.errors import FleetError


class ManagedNode(LifecycleNode):
    """What the nodes of this package share; each of them says what its transitions do.

    With the parameter `autostart`, which every table has, it configures and activates itself.
    """

    def __init__(self, name: str, table: Sequence[ParameterSpec]) -> None:
        """Declare the parameters; nothing of the node's own work begins."""
        super().__init__(name)
        self.configured = False
        self.active = False
        self._table = table
        self._failure = ""  # why the last transition failed
        declare(self, table)
        self._diagnostics = Diagnostics(self, self._health)

    def configure(self, values: Mapping[str, Any]) -> None:
        """Make everything but what works on images; a FleetError fails the transition."""

    def activate(self) -> None:
        """Begin to work; a FleetError fails the transition."""

    def deactivate(self) -> None:
        """End what `activate` has begun, also where that failed half-way."""

    def cleanup(self) -> None:
        """End what `configure` has begun, also where that failed half-way."""

    def health(self) -> Health:
        """Return how the configured node is."""
        return Health(OK, "works", {})

    def start(self) -> None:
        """Configure and activate if `autostart` says so."""
        done = TransitionCallbackReturn.SUCCESS
        if self.get_parameter("autostart").value and self.trigger_configure() == done:
            self.trigger_activate()

    def stop(self) -> None:
        """End everything, whatever the state is."""
        if self.active:
            self.deactivate()
        if self.configured:
            self.cleanup()
        self.active = self.configured = False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the state machine."""
        del state
        done = self._try(lambda: self.configure(read(self, self._table)), self.cleanup)
        self.configured = done == TransitionCallbackReturn.SUCCESS
        return done

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the state machine."""
        done = self._try(self.activate, self.deactivate)
        self.active = done == TransitionCallbackReturn.SUCCESS
        return super().on_activate(state) if self.active else done

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the state machine."""
        self.active = False
        self._try(self.deactivate)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the state machine."""
        del state
        self.configured = False
        return self._try(self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by the state machine."""
        del state
        self.stop()
        return TransitionCallbackReturn.SUCCESS

    def _try(
        self, step: Callable[[], None], undo: Callable[[], None] = lambda: None
    ) -> TransitionCallbackReturn:
        """Run a step; rclpy would hide what it raises."""
        self._failure = ""
        try:
            step()
        except FleetError as error:
            self._failure = " ".join(str(error).split())
            self.get_logger().error(self._failure)
        except Exception as error:  # noqa: BLE001  (rclpy would hide it)
            self._failure = f"{type(error).__name__}: {error}"
            if self.context.ok():  # else a signal came in the middle of it
                self.get_logger().error(traceback.format_exc())
        else:
            return TransitionCallbackReturn.SUCCESS
        undo()
        return TransitionCallbackReturn.FAILURE

    def _health(self) -> Health:
        if self._failure:
            return Health(ERROR, self._failure, {})
        if not self.configured:
            return Health(WARN, "not configured: `ros2 lifecycle set` configures it", {})
        health = self.health()
        if not self.active and health.level == OK:
            return Health(OK, "inactive: `ros2 lifecycle set` activates it", health.values)
        return health
