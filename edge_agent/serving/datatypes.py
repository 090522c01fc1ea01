"""Types as the Open Inference Protocol names them, and their bytes; NumPy has no BF16."""

import struct
from collections.abc import Iterable

import numpy as np

from fleet_model.errors import SettingsError
from fleet_model.types import Tensor

BYTES = "BYTES"  # an element is any string of bytes
DTYPES = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(dtype: str) -> str:
    """Return the protocol's name of a NumPy type; raises SettingsError for one that it has not."""
    name = NAMES.get(np.dtype(dtype).newbyteorder("<"))
    if name is None:
        raise SettingsError(
            f"a tensor of type {dtype} cannot be served; the protocol has {', '.join(DTYPES)}"
        )
    return name


def packed(value: Tensor, datatype: str) -> bytes:
    """Return a tensor's bytes; every element of BYTES has its length before it."""
    if datatype == BYTES:
        return b"".join(_LENGTH.pack(len(element)) + element for element in value.ravel())
    return value.astype(DTYPES[datatype], copy=False).tobytes()


def unpacked_elements(raw: bytes | memoryview) -> list[bytes]:
    """Return the elements of BYTES; raises ValueError if lengths and bytes do not fit."""
    elements, at = [], 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise ValueError("ends within the length of an element")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size + length
        if at > len(raw):
            raise ValueError(f"has an element of {length} bytes that is cut short")
        elements.append(bytes(raw[at - length : at]))
    return elements


def array_of(elements: Iterable[bytes]) -> Tensor:
    """Return elements of BYTES as a tensor of one axis."""
    found = list(elements)
    tensor = np.empty(len(found), object)
    tensor[:] = found
    return tensor
