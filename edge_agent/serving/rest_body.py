"""The bodies of REST: JSON, or JSON and then the bytes of tensors (binary tensor extension)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pydantic_core

from edge_agent.serving.datatypes import BYTES, packed
from edge_agent.serving.request import Given, InferAnswer, InferRequest, Output, RequestError

JSON_BYTES = b"inference-header-content-length"  # the header that says where JSON ends
MAX_ID = 200


class Body(NamedTuple):
    """What is sent back."""

    headers: Sequence[tuple[bytes, bytes]]
    content: bytes


def read_request(body: bytes, json_bytes: bytes | None) -> InferRequest:
    """Return what a body asks.

    Args:
        body: whole.
        json_bytes: value of the header JSON_BYTES; None: all of the body is JSON.

    Raises:
        RequestError: it is not what the protocol says; tensors are checked later.
    """
    length = _length(json_bytes, len(body))
    fields = _object(_parsed(body[:length]), "the request")
    binary = _Binary(memoryview(body)[length:])
    given = fields.get("inputs")
    if not isinstance(given, list) or not given:
        raise _invalid("'inputs' is missing, expected a list of tensors")
    inputs = [_given(_object(one, "an input"), binary) for one in given]
    if binary.left:
        raise _invalid(f"{binary.left} bytes follow that belong to no input")
    parameters = _parameters(fields)
    as_bytes = _flag(parameters, "binary_data_output")
    return InferRequest(
        inputs,
        _text(fields, "id", "", MAX_ID),
        _wanted(fields, as_bytes),
        as_bytes,
    )


def write_answer(answer: InferAnswer, request: InferRequest) -> Body:
    """Return an answer as its client wants it."""
    behind: list[bytes] = []
    outputs = []
    for one in answer.outputs:
        shape = list(one.value.shape)
        told: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": shape}
        if request.outputs.get(one.name, request.binary):
            behind.append(packed(one.value, one.datatype))
            told["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            told["data"] = _values(one)
        outputs.append(told)
    fields: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if request.id:
        fields["id"] = request.id
    head = pydantic_core.to_json({**fields, "outputs": outputs})
    if not behind:
        return json_body(head)
    headers = [
        (b"content-type", b"application/octet-stream"),
        (JSON_BYTES, str(len(head)).encode()),
    ]
    return Body(headers, b"".join([head, *behind]))


def json_body(content: bytes) -> Body:
    """Return JSON as a body."""
    return Body([(b"content-type", b"application/json")], content)


class _Binary:
    """The bytes behind the JSON: each input takes its own, in the order of the inputs."""

    def __init__(self, content: memoryview) -> None:
        self._content, self._at = content, 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def take(self, size: Any, name: str) -> memoryview:
        if type(size) is not int or not 0 <= size <= self.left:
            raise _invalid(
                f"input {name!r}: binary_data_size is {size!r:.40}, but {self.left} bytes are left"
            )
        self._at += size
        return self._content[self._at - size : self._at]


def _given(one: Mapping[str, Any], binary: _Binary) -> Given:
    name = _text(one, "name")
    shape = one.get("shape")
    if not isinstance(shape, list):
        raise _invalid(f"input {name!r}: 'shape' is missing, expected a list of whole numbers")
    parameters = _parameters(one)
    if any(key.startswith("shared_memory") for key in parameters):
        raise _invalid(f"input {name!r}: shared memory is not served; send the bytes")
    datatype, raw, values = _text(one, "datatype"), None, one.get("data")
    if "binary_data_size" in parameters:
        if values is not None:
            raise _invalid(f"input {name!r}: has 'data' and binary_data_size; give one of them")
        raw, values = binary.take(parameters["binary_data_size"], name), ()
    elif not isinstance(values, list):
        raise _invalid(f"input {name!r}: 'data' is missing, expected a list")
    return Given(name, datatype, shape, raw, values, parameters.get("content_type") == "base64")


def _wanted(fields: Mapping[str, Any], as_bytes: bool) -> dict[str, bool]:
    outputs = fields.get("outputs", [])
    if not isinstance(outputs, list):
        raise _invalid("'outputs' is no list")
    wanted: dict[str, bool] = {}
    for one in outputs:
        parameters = _parameters(_object(one, "an output"))
        name = _text(one, "name")
        if "classification" in parameters:
            raise _invalid(
                f"output {name!r}: classification is not served; the model's metadata have the "
                "labels, and other models of this server give a label"
            )
        if any(key.startswith("shared_memory") for key in parameters):
            raise _invalid(f"output {name!r}: shared memory is not served")
        wanted[name] = _flag(parameters, "binary_data", as_bytes)
    return wanted


def _values(output: Output) -> list[Any]:
    if output.datatype == BYTES:
        return [element.decode(errors="replace") for element in output.value.ravel()]
    return list(output.value.ravel().tolist())


def _length(json_bytes: bytes | None, total: int) -> int:
    if json_bytes is None:
        return total
    if not json_bytes.isdigit() or len(json_bytes) > 10 or int(json_bytes) > total:
        raise _invalid(
            f"Inference-Header-Content-Length is {json_bytes.decode('latin-1')!r:.40}, expected "
            f"the bytes of the JSON part, at most the {total} of the body"
        )
    return int(json_bytes)


def _parsed(content: bytes) -> Any:
    try:
        return pydantic_core.from_json(content, allow_inf_nan=False)
    except ValueError as reason:
        raise _invalid(f"the body is no JSON: {str(reason)[:200]}") from None


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{what} is no JSON object")
    return value


def _parameters(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    return _object(fields.get("parameters", {}), "'parameters'")


def _text(
    fields: Mapping[str, Any], key: str, default: str | None = None, longest: int = 10**6
) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str) or len(value) > longest:
        raise _invalid(f"{key!r} is {value!r:.80}, expected a text")
    return value


def _flag(parameters: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise _invalid(f"{key} is {value!r:.40}, expected true or false")
    return value


def _invalid(message: str) -> RequestError:
    return RequestError("invalid", message)
