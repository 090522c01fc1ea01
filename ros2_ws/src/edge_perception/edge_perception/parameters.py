"""Parameters of a node: one table declares, describes, bounds and checks them.

A table is a tuple of ParameterSpec and needs no ROS to be read: README, YAML and launch files are
held against it.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from edge_perception.params_files import silent_files

from fleet_model.errors import SettingsError

Value = bool | int | float | str | tuple[str, ...]

# Declared by rclpy itself, or read before any node could declare it.
_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter. Its type is that of the default; a tuple is a list of texts."""

    name: str
    default: Value
    description: str  # one line, with the unit
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    at_run_time: bool = False  # else it is read when the node is configured

    @property
    def type(self) -> str:
        """Return the type's name as `ros2 param describe` has it."""
        return _TYPES[type(self.default)]

    @property
    def allowed(self) -> str:
        """Return what may be given, in words; "" is anything."""
        if self.choices:
            return ", ".join(self.choices)
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least:g} to {self.at_most:g}"
        return f"at least {self.at_least:g}" if self.at_least is not None else ""


_TYPES = {bool: "boolean", int: "integer", float: "double", str: "string", tuple: "string array"}
_NO_LIMIT = {int: 2**63 - 1, float: 1.7976931348623157e308}


def declare(node: Any, table: Sequence[ParameterSpec]) -> None:
    """Declare every parameter of the table, warn of given ones that are not in it, watch changes.

    A change of a parameter that is not `at_run_time` is refused while `node.configured` is true.

    Raises:
        SettingsError: a given value has another type, is out of its range, or is none of those that
            may be chosen.
    """
    from rclpy import exceptions

    names = ("InvalidParameterTypeException", "InvalidParameterValueException")
    refusals = tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name))
    given = node._parameter_overrides
    for spec in table:
        try:
            _declare(node, spec)
        except refusals as error:
            value = given[spec.name].value if spec.name in given else error
            raise SettingsError(refusal(spec, value)) from None
        if problem := _problem(spec, node.get_parameter(spec.name).value):
            raise SettingsError(problem)
    specs = {spec.name: spec for spec in table}
    node.add_on_set_parameters_callback(lambda changes: _judge(node, specs, changes))
    say = node.get_logger()
    for warning in unknown_overrides(given, table):
        say.warning(warning)
    for silent in silent_files(sys.argv, node.get_fully_qualified_name()):
        if silent.is_meant:
            say.warning(silent.words)
        else:  # rclpy allows one level for each line of code
            say.info(silent.words)


def read(node: Any, table: Sequence[ParameterSpec]) -> dict[str, Any]:
    """Return the value of every parameter of the table, by name; lists as tuples."""
    values = {spec.name: node.get_parameter(spec.name).value for spec in table}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}


def refusal(spec: ParameterSpec, value: Any) -> str:
    """Return what is wrong with a given value of another type or range, and what to write."""
    value = value.tolist() if hasattr(value, "tolist") else value
    hint = ""
    if isinstance(spec.default, float) and type(value) is int:
        hint = f"; write {value}.0"
    elif isinstance(spec.default, tuple) and isinstance(value, str):
        hint = f"; write [{value}]"
    elif isinstance(spec.default, str) and not spec.choices and type(value) in (int, float):
        hint = f"""; write '"{value}"'"""
    allowed = f", {spec.allowed}" if spec.allowed else ""
    return f"parameter {spec.name} is {value!r}, expected {spec.type}{allowed}{hint}"


def unknown_overrides(given: Mapping[str, Any], table: Sequence[ParameterSpec]) -> list[str]:
    """Return a warning for each given parameter that is in no table: ROS ignores it silently."""
    names = [spec.name for spec in table]
    warnings = []
    for name in given:
        if name in names or name.startswith(_OF_ROS):
            continue
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(names)}"
        warnings.append(f"parameter {name} was given, but this node has none of that name{hint}")
    return warnings


def _declare(node: Any, spec: ParameterSpec) -> None:
    from rclpy.parameter import Parameter

    descriptor = _descriptor(spec)
    if not isinstance(spec.default, tuple):
        node.declare_parameter(spec.name, spec.default, descriptor)
        return
    # the default [] would be taken for bytes
    default = Parameter(spec.name, Parameter.Type.STRING_ARRAY, list(spec.default))
    node.declare_parameter(spec.name, Parameter.Type.STRING_ARRAY, descriptor)
    given = node.get_parameter_or(spec.name, default)
    if given is default or given.type_ == Parameter.Type.NOT_SET:  # the latter on Humble
        node.set_parameters([default])


def _descriptor(spec: ParameterSpec) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(
        description=spec.description, additional_constraints=spec.allowed
    )
    kind = type(spec.default)
    if spec.at_least is not None and kind in _NO_LIMIT:
        # a range of the other number type is ignored without a word
        least, most = spec.at_least, _NO_LIMIT[kind] if spec.at_most is None else spec.at_most
        if kind is int:
            whole = IntegerRange(from_value=int(least), to_value=int(most), step=1)
            descriptor.integer_range = [whole]
        else:
            real = FloatingPointRange(from_value=float(least), to_value=float(most), step=0.0)
            descriptor.floating_point_range = [real]
    return descriptor


def _problem(spec: ParameterSpec, value: Any) -> str:
    if spec.choices and value not in spec.choices:
        return f"parameter {spec.name} is {value!r}, expected one of {spec.allowed}"
    return ""


def _judge(node: Any, specs: Mapping[str, ParameterSpec], changes: Iterable[Any]) -> Any:
    """Refuse what cannot be; rclpy itself looks at types and ranges."""
    from rcl_interfaces.msg import SetParametersResult

    for change in changes:
        spec = specs.get(change.name)
        problem = _problem(spec, change.value) if spec else ""
        if spec and not spec.at_run_time and getattr(node, "configured", False):
            problem = (
                f"parameter {spec.name} is read when the node is configured: clean it up first"
            )
        if problem:
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)
