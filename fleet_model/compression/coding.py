"""Updates as bytes, and back; codec.py says which bytes.

Rounding is to the nearest, without chance: what is lost is not lost for good but sent with the next
update (edge_agent/training/residual.py), which makes rounding errors harmless (arXiv:1901.09847),
and the same update always gives the same bytes. All is little-endian.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fleet_model.compression.codec import (
    CODED,
    FP16,
    INT8,
    TOPK,
    Codec,
    Shape,
    coded_bytes,
    is_plain,
    parse_codec,
    place_bytes,
    sent_of,
    tensor_bytes,
)
from fleet_model.errors import UpdateError
from fleet_model.types import FLOAT32, Tensor, Update, Weights

LARGEST_FP16 = float(np.finfo(np.float16).max)
# 127 of it are finite.
_LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(127), np.float32(0))
Bytes: TypeAlias = NDArray[np.uint8]


def encode(update: Weights, codec: Codec) -> Bytes:
    """Return an update of finite float32 tensors as bytes: the same ones for the same update."""
    parts = [_encoder(update[name].shape, codec)(update[name], codec) for name in sorted(update)]
    return np.frombuffer(b"".join(parts), np.uint8)


def decode(coded: Bytes, model: Weights, codec: Codec) -> Weights:
    """Return the float32 tensors that bytes of a stranger mean.

    Args:
        coded: (n,) uint8
        model: tensors with the names and shapes that the update must have.
        codec: of the bytes.

    Raises:
        UpdateError: they are no update of that model, or hold what is not finite.
    """
    expected = coded_bytes(model, codec)
    if coded.size != expected:
        raise UpdateError(
            f"the update has {coded.size} bytes of {codec}, expected {expected} for this model"
        )
    content, begin, tensors = coded.data, 0, dict[str, Tensor]()
    for name in sorted(model):
        shape = model[name].shape
        end = begin + tensor_bytes(shape, codec)
        try:
            tensors[name] = _decoder(shape, codec)(content[begin:end], shape, codec)
        except ValueError as error:
            raise UpdateError(f"the update: {name} in {codec}: {error}") from None
        begin = end
    return {name: tensors[name] for name in model}


def decoded(update: Update, model: Weights) -> Update:
    """Return a reply as if it had travelled as float32; raises UpdateError as `decode`."""
    if update.codec == FLOAT32:
        return update
    weights = decode(update.weights[CODED], model, parse_codec(update.codec))
    return replace(update, weights=weights, codec=FLOAT32)


def _encode_plain(tensor: Tensor, _: Codec) -> bytes:
    return np.ascontiguousarray(tensor, "<f4").tobytes()


def _encode_fp16(tensor: Tensor, _: Codec) -> bytes:
    return _half(tensor).tobytes()


def _encode_int8(tensor: Tensor, _: Codec) -> bytes:
    rows = tensor.reshape(-1, tensor.shape[-1])  # one channel a column
    scales = np.minimum(np.abs(rows).max(axis=0) / np.float32(127), _LARGEST_SCALE)
    # Numbers so small that their scale is zero travel as zero.
    steps = np.divide(rows, scales, out=np.zeros_like(rows), where=scales > 0)
    levels = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    return b"".join((scales.astype("<f4").data, levels.data))


def _encode_topk(tensor: Tensor, codec: Codec) -> bytes:
    flat = tensor.reshape(-1)
    most = sent_of(flat.size, codec)
    places = np.sort(np.argpartition(np.abs(flat), flat.size - most)[flat.size - most :])
    told: bytes = places.astype(_places(flat.size)).tobytes()
    return told + _half(flat[places]).tobytes()


def _places(count: int) -> "np.dtype[np.uint16] | np.dtype[np.uint32]":
    return np.dtype("<u2") if place_bytes(count) == 2 else np.dtype("<u4")


def _half(numbers: Tensor) -> NDArray[np.float16]:
    return np.clip(numbers, -LARGEST_FP16, LARGEST_FP16).astype("<f2")


def _decode_plain(content: memoryview, shape: Shape, _: Codec) -> Tensor:
    return _finite(np.frombuffer(content, "<f4").astype(np.float32)).reshape(shape)


def _decode_fp16(content: memoryview, shape: Shape, _: Codec) -> Tensor:
    return _finite(np.frombuffer(content, "<f2").astype(np.float32)).reshape(shape)


def _decode_int8(content: memoryview, shape: Shape, _: Codec) -> Tensor:
    scales = np.frombuffer(content, "<f4", shape[-1])
    levels = np.frombuffer(content, np.int8, offset=scales.nbytes).reshape(shape)
    if not (scales >= 0).all():  # neither is NaN
        raise ValueError("a scale is below zero or not a number")
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes of it is refused
        return _finite(levels * scales.astype(np.float32))


def _decode_topk(content: memoryview, shape: Shape, codec: Codec) -> Tensor:
    count = math.prod(shape)
    most = sent_of(count, codec)
    places = np.frombuffer(content, _places(count), most).astype(np.int64)
    if places[-1] >= count or (np.diff(places) <= 0).any():
        raise ValueError(f"places are not in order, repeated, or not below {count}")
    numbers = np.frombuffer(content, "<f2", offset=most * place_bytes(count))
    tensor = np.zeros(count, np.float32)
    tensor[places] = _finite(numbers.astype(np.float32))
    return tensor.reshape(shape)


def _finite(numbers: Tensor) -> Tensor:
    if not np.isfinite(numbers).all():
        raise ValueError("holds NaN or infinity, expected finite numbers")
    return numbers


_ENCODERS: Mapping[str, Callable[[Tensor, Codec], bytes]] = {
    FLOAT32: _encode_plain, FP16: _encode_fp16, INT8: _encode_int8, TOPK: _encode_topk,
}  # fmt: skip
_DECODERS: Mapping[str, Callable[[memoryview, Shape, Codec], Tensor]] = {
    FLOAT32: _decode_plain, FP16: _decode_fp16, INT8: _decode_int8, TOPK: _decode_topk,
}  # fmt: skip


def _encoder(shape: Shape, codec: Codec) -> Callable[[Tensor, Codec], bytes]:
    return _ENCODERS[FLOAT32 if is_plain(shape, codec) else codec.name]


def _decoder(shape: Shape, codec: Codec) -> Callable[[memoryview, Shape, Codec], Tensor]:
    return _DECODERS[FLOAT32 if is_plain(shape, codec) else codec.name]
