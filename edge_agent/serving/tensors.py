"""Check what a client gives: nothing is cast, cut, filled up or guessed."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from edge_agent.serving.datatypes import BYTES, DTYPES, array_of, unpacked_elements
from edge_agent.serving.request import Given, RequestError
from fleet_model.types import Tensor

MAX_AXIS = 2**31


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor that a served model takes or gives."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # the batch axis first, -1; further -1 are free
    low: float | None = None  # what the workload can make sense of, both ends included
    high: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as metadata have it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


def checked(ports: Sequence[Port], given: Sequence[Given], max_batch: int) -> dict[str, Tensor]:
    """Return the inputs by name, all with the same batch axis.

    Raises:
        RequestError: one is missing, unknown, given twice, or not what its port says.
    """
    expected = {port.name: port for port in ports}
    tensors: dict[str, Tensor] = {}
    for one in given:
        if one.name not in expected:
            raise _invalid(f"there is no input {one.name!r:.80}; it takes {', '.join(expected)}")
        if one.name in tensors:
            raise _invalid(f"input {one.name!r} is given twice")
        tensors[one.name] = _checked(expected[one.name], one, max_batch)
    if missing := [name for name in expected if name not in tensors]:
        raise _invalid(f"input {missing[0]!r} is missing; it takes {', '.join(expected)}")
    if len({len(tensor) for tensor in tensors.values()}) > 1:
        sizes = ", ".join(f"{name} {len(tensor)}" for name, tensor in tensors.items())
        raise _invalid(f"the inputs differ in their first axis: {sizes}")
    return tensors


def _checked(port: Port, given: Given, max_batch: int) -> Tensor:
    if given.datatype != port.datatype:
        raise _wrong(port, f"has datatype {given.datatype!r:.40}, expected {port.datatype}")
    shape = _checked_shape(port, given.shape, max_batch)
    if port.datatype == BYTES:
        elements = _elements(port, given)
        _require_count(port, len(elements), shape, "elements")
        return array_of(elements).reshape(shape)
    dtype = DTYPES[port.datatype]
    if given.raw is None:
        tensor = _from_values(port, given.values, shape)
    else:
        raw = given.raw
        _require_count(port, len(raw), (*shape, dtype.itemsize), "bytes")
        if port.datatype == "BOOL" and max(raw, default=0) > 1:
            raise _wrong(port, "has a byte that is neither 0 nor 1")
        tensor = np.frombuffer(raw, dtype).reshape(shape)
    _require_range(port, tensor)
    return tensor


def _checked_shape(port: Port, shape: Sequence[Any], max_batch: int) -> tuple[int, ...]:
    if not all(type(n) is int and 0 < n < MAX_AXIS for n in shape):
        raise _wrong(port, f"has shape {_told(shape)}, expected whole numbers above 0")
    fits = len(shape) == len(port.shape) and all(
        wanted in (-1, n) for n, wanted in zip(shape, port.shape, strict=True)
    )
    if not fits:
        raise _wrong(
            port, f"has shape {_told(shape)}, expected {list(port.shape)}; -1 stands for any number"
        )
    if shape[0] > max_batch:
        raise _wrong(port, f"has {shape[0]} rows, expected at most serve.max_batch = {max_batch}")
    return tuple(shape)


def _from_values(port: Port, values: Sequence[Any], shape: tuple[int, ...]) -> Tensor:
    flat = _flat(port, values, shape)
    dtype = DTYPES[port.datatype]
    kinds: dict[str, set[type]] = {"f": {int, float}, "b": {bool}}
    allowed = kinds.get(dtype.kind, {int})
    if wrong := set(map(type, flat)) - allowed:
        names = " or ".join(sorted(kind.__name__ for kind in allowed))
        found = min(kind.__name__ for kind in wrong)
        raise _wrong(port, f"has a {'null' if found == 'NoneType' else found}, expected {names}")
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        if min(flat) < limits.min or max(flat) > limits.max:
            raise _wrong(port, f"has a number outside {limits.min} to {limits.max}")
        return np.array(flat, dtype).reshape(shape)
    if dtype.kind == "b":
        return np.array(flat, dtype).reshape(shape)
    try:
        wide = np.array(flat, np.float64)
    except OverflowError:
        raise _wrong(port, f"has a number that {port.datatype} cannot hold") from None
    with np.errstate(over="ignore"):
        tensor = wide.astype(dtype)
    if not np.isfinite(tensor).all() and np.isfinite(wide).all():
        raise _wrong(port, f"has a number that {port.datatype} cannot hold")
    return tensor.reshape(shape)


def _flat(port: Port, values: Sequence[Any], shape: tuple[int, ...]) -> Sequence[Any]:
    """Return the elements of lists that are flat, or nested as the shape says."""
    if not (values and isinstance(values[0], list)):
        _require_count(port, len(values), shape, "elements")
        return values
    level: Sequence[Any] = [values]
    for axis, length in enumerate(shape):
        if not all(isinstance(one, list) and len(one) == length for one in level):
            raise _wrong(port, f"its lists do not have shape {list(shape)} (axis {axis})")
        level = list(chain.from_iterable(level))
    return level


def _elements(port: Port, given: Given) -> list[bytes]:
    if given.raw is not None:
        try:
            return unpacked_elements(given.raw)
        except ValueError as reason:
            raise _wrong(port, str(reason)) from None
    values = given.values
    if all(isinstance(value, bytes) for value in values):  # gRPC has bytes of its own
        return list(values)
    if not all(isinstance(value, str) for value in values):
        raise _wrong(port, "expected a list of strings")
    if not given.base64:
        return [value.encode() for value in values]
    try:
        return [base64.b64decode(value, validate=True) for value in values]
    except (binascii.Error, ValueError):
        raise _wrong(port, 'content_type is "base64", and an element is not') from None


def _require_count(port: Port, found: int, shape: Sequence[int], what: str) -> None:
    if found != prod(shape):
        raise _wrong(port, f"has {found} {what}, its shape needs {prod(shape)}")


def _require_range(port: Port, tensor: Tensor) -> None:
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise _wrong(port, "has a value that is not finite")
    low, high = port.low, port.high
    if (low is not None and tensor.min() < low) or (high is not None and tensor.max() > high):
        raise _wrong(
            port, f"has values {tensor.min():g} to {tensor.max():g}, expected {low:g} to {high:g}"
        )


def _told(shape: Sequence[Any]) -> str:
    text = str(list(shape))
    return text if len(text) < 100 else f"{text[:100]}..."


def _wrong(port: Port, what: str) -> RequestError:
    return _invalid(f"input {port.name!r} {what}")


def _invalid(message: str) -> RequestError:
    return RequestError("invalid", message)
