"""A request and its answer as both wires have them, and how one is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fleet_model.types import Tensor

Kind = Literal["invalid", "unknown", "full", "not ready", "failed"]


class RequestError(Exception):
    """A request is not answered; its words go to the client, which is on this machine."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """One input as it came, not yet checked."""

    name: str
    datatype: str
    shape: Sequence[Any]
    raw: bytes | memoryview | None = None  # little-endian, row-major; None: `values` has them
    values: Sequence[Any] = ()  # flat or nested lists
    base64: bool = False  # elements of BYTES are written so


@dataclass(frozen=True, eq=False, slots=True)
class InferRequest:
    """What is asked."""

    inputs: Sequence[Given]
    id: str = ""
    outputs: Mapping[str, bool] = field(default_factory=dict)  # name -> as bytes; {}: all of them
    binary: bool = False  # outputs that are not named come as bytes


@dataclass(frozen=True, eq=False, slots=True)
class Output:
    """One tensor of an answer."""

    name: str
    datatype: str
    value: Tensor  # with the batch axis; of BYTES an array of objects


@dataclass(frozen=True, eq=False, slots=True)
class InferAnswer:
    """What is answered, all of it by one version of the model."""

    model: str
    version: str
    outputs: Sequence[Output]
