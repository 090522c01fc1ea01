"""The gRPC messages of the Open Inference Protocol v2 (package `inference`).

Written as tables and not generated: generated code asks for one range of protobuf versions, and
robots have what their distribution or Flower brings. A pool of their own keeps them apart from a
client's copy in the same process. `parameters` of ModelMetadataResponse is MLServer's addition.
"""

from functools import cache
from typing import Any

SERVICE = "inference.GRPCInferenceService"
# name -> fields, in order of their numbers; "*" is repeated, "{}" a map from text.
_MESSAGES: dict[str, tuple[str, ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready",),
    "ModelReadyRequest": ("string name", "string version"),
    "ModelReadyResponse": ("bool ready",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name", "string version", "string* extensions"),
    "ModelMetadataRequest": ("string name", "string version"),
    "ModelMetadataResponse.TensorMetadata": ("string name", "string datatype", "int64* shape"),
    "ModelMetadataResponse": (
        "string name", "string* versions", "string platform",
        "ModelMetadataResponse.TensorMetadata* inputs",
        "ModelMetadataResponse.TensorMetadata* outputs",
        "InferParameter{} parameters",
    ),
    "InferParameter": (
        "bool bool_param", "int64 int64_param", "string string_param", "double double_param",
        "uint64 uint64_param",
    ),
    "InferTensorContents": (
        "bool* bool_contents", "int32* int_contents", "int64* int64_contents",
        "uint32* uint_contents", "uint64* uint64_contents", "float* fp32_contents",
        "double* fp64_contents", "bytes* bytes_contents",
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name", "string datatype", "int64* shape", "InferParameter{} parameters",
        "InferTensorContents contents",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name", "InferParameter{} parameters"),
    "ModelInferRequest": (
        "string model_name", "string model_version", "string id", "InferParameter{} parameters",
        "ModelInferRequest.InferInputTensor* inputs",
        "ModelInferRequest.InferRequestedOutputTensor* outputs", "bytes* raw_input_contents",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name", "string datatype", "int64* shape", "InferParameter{} parameters",
        "InferTensorContents contents",
    ),
    "ModelInferResponse": (
        "string model_name", "string model_version", "string id", "InferParameter{} parameters",
        "ModelInferResponse.InferOutputTensor* outputs", "bytes* raw_output_contents",
    ),
}  # fmt: skip


@cache
def message(name: str) -> Any:
    """Return the class of a message, e.g. "ModelInferRequest"."""
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


@cache
def _pool() -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool

    file = FileDescriptorProto(name="open_inference.proto", package="inference", syntax="proto3")
    made: dict[str, Any] = {}
    for name in sorted(_MESSAGES):  # "A" comes before "A.B"
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add()
        made[name].name = inner
    for name, fields in _MESSAGES.items():
        for number, text in enumerate(fields, 1):
            _add_field(made[name], name, number, text)
    _make_choice(made["InferParameter"], "parameter_choice")
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(owner: Any, owner_name: str, number: int, text: str) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    kind, name = text.split()
    field = owner.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("{}"):
        entry = "".join(word.capitalize() for word in name.split("_")) + "Entry"
        nested = owner.nested_type.add(name=entry)
        nested.options.map_entry = True
        _add_field(nested, "", 1, "string key")
        _add_field(nested, "", 2, f"{kind[:-2]} value")
        kind = f"{owner_name}.{entry}*"
    if kind.endswith("*"):
        field.label, kind = FieldDescriptorProto.LABEL_REPEATED, kind[:-1]
    if kind[0].isupper():
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".inference.{kind}"
    else:
        field.type = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}")


def _make_choice(owner: Any, name: str) -> None:
    owner.oneof_decl.add(name=name)
    for field in owner.field:
        field.oneof_index = 0
