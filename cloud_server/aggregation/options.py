"""The options of an aggregation rule, held against its constructor."""

import inspect
import math
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from fleet_model.errors import SettingsError


def checked_options(rule: str, made: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, converted to the types that the constructor of `made` declares.

    Raises:
        SettingsError: an option that the constructor does not have or needs, or a wrong value; it
            names the rule, the option, and what is expected.
    """
    parameters = inspect.signature(made).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = {one.name: one for one in parameters if one.kind in named}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters)
    choices = ", ".join(_in_words(one) for one in known.values())
    for name in options:
        if name not in known and not takes_any:
            expected = f"expected {choices}" if choices else "it has no options"
            raise SettingsError(
                f"aggregation.options: rule {rule} has no option {name}, {expected}"
            )
    for name, one in known.items():
        if one.default is one.empty and name not in options:
            raise SettingsError(
                f"aggregation.options: rule {rule} needs the option {name}; its options are "
                f"{choices}"
            )
    types = _declared_types(made)
    return {
        name: _converted(value, types[name], f"{name} of rule {rule}") if name in types else value
        for name, value in options.items()
    }


def require_between(
    name: str, value: float, low: float, high: float = math.inf, *, above: bool = False
) -> float:
    """Return the value of an option.

    Args:
        name: of the option.
        value: to check.
        low: what it is at least.
        high: what it is below.
        above: it must be more than `low`.

    Raises:
        SettingsError: it is not in the range, or no number.
    """
    if low <= value < high and not (above and value == low):
        return value
    least = f"above {low:g}" if above else f"{low:g} or more"
    most = "" if high == math.inf else f" and below {high:g}"
    raise SettingsError(f"{name} is {value:g}, expected {least}{most}")


def _declared_types(made: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (NameError, TypeError):  # a user's annotations may name what is not imported
        return {}


def _converted(value: Any, declared: Any, what: str) -> Any:
    try:
        return TypeAdapter(declared).validate_python(value)
    except PydanticSchemaGenerationError:  # the class that the user declares is not for us to know
        return value
    except ValidationError as error:
        raise SettingsError(
            f"aggregation.options: {what} is {value!r}, expected {_type_in_words(declared)} "
            f"({error.errors()[0]['msg']})"
        ) from None


def _in_words(one: inspect.Parameter) -> str:
    """Return an option as an operator reads it: memory_mb (float, default 64.0)."""
    told = [] if one.annotation is one.empty else [_type_in_words(one.annotation)]
    if one.default is not one.empty:
        told.append(f"default {one.default!r}")
    return f"{one.name} ({', '.join(told)})" if told else one.name


def _type_in_words(declared: Any) -> str:
    return declared.__name__ if inspect.isclass(declared) else str(declared)
