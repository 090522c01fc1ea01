"""In what form an update travels, and how many bytes that is.

A coded update is one run of bytes without names or lengths. Which bytes belong to which tensor
follows from the model, which both sides know: tensors in the order of their names, each as
`tensor_bytes` says. So the length of a message is known before one byte of it is believed, and a
small one cannot ask for memory that the model does not need.

    fp16         2 bytes a number; what is longer than 65504 is cut to it
    int8         1 byte a number, and a float32 scale for each channel, which is the last axis
    topk:SHARE   the SHARE of a tensor's numbers that are furthest from zero: places, then fp16

Tensors of fewer than two axes, and those that would not get smaller, travel as they are.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from fleet_model.errors import UpdateError
from fleet_model.types import FLOAT32, Weights

FP16, INT8, TOPK = "fp16", "int8", "topk"
CODED = "coded"  # the name of the only array of a coded update
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Codec:
    """How the tensors of an update travel."""

    name: str  # FLOAT32, FP16, INT8 or TOPK
    share: float = 0.0  # TOPK: of the numbers of a tensor that travel, over 0, at most 1

    def __str__(self) -> str:
        return f"{self.name}:{self.share:g}" if self.name == TOPK else self.name


def parse_codec(text: str) -> Codec:
    """Return the codec of a message; raises UpdateError for one that is not known here."""
    name, colon, share = text.partition(":")
    if name in (FLOAT32, FP16, INT8) and not colon:
        return Codec(name)
    try:
        if name == TOPK and 0 < float(share) <= 1:
            return Codec(name, float(share))
    except ValueError:
        pass
    raise UpdateError(
        f"the codec {text!r:.40} is not known, expected {FLOAT32}, {FP16}, {INT8} or {TOPK}:SHARE"
    )


def coded_bytes(model: Weights, codec: Codec) -> int:
    """Return how long a coded update of a model is."""
    return sum(tensor_bytes(tensor.shape, codec) for tensor in model.values())


def tensor_bytes(shape: Shape, codec: Codec) -> int:
    """Return the bytes of one tensor."""
    return min(_coded(shape, codec), 4 * math.prod(shape))


def is_plain(shape: Shape, codec: Codec) -> bool:
    """Return whether a tensor travels as it is."""
    return _coded(shape, codec) >= 4 * math.prod(shape)


def sent_of(count: int, codec: Codec) -> int:
    """Return how many of a tensor's numbers TOPK sends."""
    return min(count, max(1, math.ceil(codec.share * count)))


def place_bytes(count: int) -> int:
    """Return the bytes of the smallest number that tells each of so many places."""
    return 2 if count <= 1 << 16 else 4


def _coded(shape: Shape, codec: Codec) -> int:
    count = math.prod(shape)
    if len(shape) < 2 or codec.name == FLOAT32:
        return 4 * count
    if codec.name == FP16:
        return 2 * count
    if codec.name == INT8:
        return 4 * shape[-1] + count
    return sent_of(count, codec) * (place_bytes(count) + 2)
