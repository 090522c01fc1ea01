"""The protocol over gRPC: bytes in and out are read and made in the model's thread."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from edge_agent.serving.arrivals import Arrivals
from edge_agent.serving.datatypes import BYTES, packed
from edge_agent.serving.grpc_messages import SERVICE, message
from edge_agent.serving.inference import Bounds, Inference
from edge_agent.serving.request import Given, InferAnswer, InferRequest, RequestError
from edge_agent.serving.rest_body import MAX_ID

CODES = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "unknown": grpc.StatusCode.NOT_FOUND,
    "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "not ready": grpc.StatusCode.UNAVAILABLE,
    "failed": grpc.StatusCode.INTERNAL,
}
# The field of InferTensorContents that holds a type. FP16 has none: it comes as raw bytes.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
IDLE_MS = 300_000  # then a connection ends; clients make a new one by themselves
MAX_CALLS = 256  # of all connections, while their messages arrive and are answered
Answer = Callable[[bytes, Any], Awaitable[bytes]]


def grpc_server(inference: Inference, bounds: Bounds) -> grpc.aio.Server:
    """Return a server without an address; to be made in the event loop that it runs in."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_CALLS,
        options=[
            ("grpc.max_receive_message_length", bounds.max_body),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.max_concurrent_streams", MAX_CALLS // 4),  # of one connection
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.server_handshake_timeout_ms", int(bounds.slow_s * 1e3)),  # else two minutes
            ("grpc.so_reuseport", 0),  # else a second server would take half of the requests
        ],
    )
    server.add_generic_rpc_handlers((_handlers(inference, bounds),))
    return server


def _handlers(inference: Inference, bounds: Bounds) -> Any:
    async def infer(content: bytes, context: Any) -> bytes:
        def job() -> bytes:
            return _infer(inference, content)

        return await inference.run("grpc", context.peer(), len(content), job)

    def told(name: str) -> Answer:
        async def tell(content: bytes, context: Any) -> bytes:
            answer = _TELL[name](inference, _parsed(f"{name}Request", content))
            serialized: bytes = message(f"{name}Response")(**answer).SerializeToString()
            return serialized

        return tell

    answers = {"ModelInfer": infer, **{name: told(name) for name in _TELL}}
    arrivals = Arrivals(bounds)
    methods = {name: _method(answer, inference, arrivals) for name, answer in answers.items()}
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def _method(answer: Answer, inference: Inference, arrivals: Arrivals) -> Any:
    """Return a method whose one message must arrive in time; on the wire it is as any other."""

    async def method(_: Any, context: Any) -> bytes:
        try:
            content = await arrivals.read(context)
        except RequestError as error:
            inference.counts["grpc", error.kind] += 1
            return await _refuse(context, error)
        try:
            return await answer(content, context)
        except RequestError as error:
            return await _refuse(context, error)

    return grpc.stream_unary_rpc_method_handler(method)


async def _refuse(context: Any, error: RequestError) -> bytes:
    await context.abort(CODES[error.kind], str(error))
    return b""  # abort raises


def _model_metadata(inference: Inference, asked: Any) -> dict[str, Any]:
    told = inference.served().metadata(asked.name, asked.version)
    parameter = message("InferParameter")
    parameters = {"labels": parameter(string_param=",".join(told["parameters"]["labels"]))}
    for name in ("precision", "runtime", "runs"):
        parameters[name] = parameter(string_param=told["parameters"][name])
    return {**told, "parameters": parameters}


_TELL: Mapping[str, Callable[[Inference, Any], dict[str, Any]]] = {
    "ServerLive": lambda inference, asked: {"live": True},
    "ServerReady": lambda inference, asked: {"ready": inference.is_ready()},
    "ModelReady": lambda inference, asked: {
        "ready": inference.is_ready() and bool(inference.served().model(asked.name, asked.version))
    },
    "ServerMetadata": lambda inference, asked: inference.server_metadata(),
    "ModelMetadata": _model_metadata,
}


def _infer(inference: Inference, content: bytes) -> bytes:
    asked = _parsed("ModelInferRequest", content)
    request = _request(asked)
    answer = inference.infer(asked.model_name, asked.model_version, request)
    return _serialized(answer, request.id)


def _parsed(name: str, content: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(content)
    except DecodeError:
        raise RequestError("invalid", f"the bytes are no {name}") from None


def _request(asked: Any) -> InferRequest:
    raw = asked.raw_input_contents
    if raw and len(raw) != len(asked.inputs):
        raise RequestError(
            "invalid", f"{len(raw)} raw_input_contents for {len(asked.inputs)} inputs"
        )
    if len(asked.id) > MAX_ID:
        raise RequestError("invalid", f"id has {len(asked.id)} letters, expected {MAX_ID} at most")
    if not asked.inputs:
        raise RequestError("invalid", "there are no inputs")
    inputs = [_given(one, raw[i] if raw else None) for i, one in enumerate(asked.inputs)]
    for one in (*asked.inputs, *asked.outputs):
        if wrong := [k for k in one.parameters if k.startswith(("shared_", "classification"))]:
            raise RequestError("invalid", f"{one.name!r}: {wrong[0]} is not served")
    return InferRequest(inputs, asked.id, {one.name: True for one in asked.outputs}, binary=True)


def _given(one: Any, raw: bytes | None) -> Given:
    if raw is not None:
        if one.HasField("contents"):
            raise RequestError("invalid", f"input {one.name!r} has contents and raw contents")
        return Given(one.name, one.datatype, list(one.shape), raw)
    filled = [field.name for field, _ in one.contents.ListFields()]
    field = _CONTENTS.get(one.datatype)
    if filled and filled != [field]:
        raise RequestError(
            "invalid",
            f"input {one.name!r} of datatype {one.datatype!r:.40} has {', '.join(filled)}, "
            f"expected {field or 'raw_input_contents'}",
        )
    values = list(getattr(one.contents, field)) if field else []
    return Given(one.name, one.datatype, list(one.shape), values=values)


def _serialized(answer: InferAnswer, request_id: str) -> bytes:
    told = message("ModelInferResponse")(
        model_name=answer.model, model_version=answer.version, id=request_id
    )
    for one in answer.outputs:
        told.outputs.add(name=one.name, datatype=one.datatype, shape=one.value.shape)
        told.raw_output_contents.append(packed(one.value, one.datatype))
    serialized: bytes = told.SerializeToString()
    return serialized
