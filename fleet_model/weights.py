"""Check, combine, read, write named tensors."""

import json
import math
import mmap
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fleet_model.durable import writing
from fleet_model.errors import CheckpointError, FleetError, UpdateError, one_line
from fleet_model.types import Tensor, Weights

_DTYPES = {  # name in a safetensors file -> NumPy's
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U64": "<u8", "I32": "<i4",
    "U32": "<u4", "I16": "<i2", "U16": "<u2", "I8": "i1", "U8": "u1", "BOOL": "?", "C64": "<c8",
}  # fmt: skip
Content: TypeAlias = bytes | mmap.mmap
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_MAX_TABLE_BYTES = 100_000_000  # the format's own limit


class TensorEntry(BaseModel):
    """Where one tensor lies in a safetensors file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: Literal[tuple(_DTYPES)]  # type: ignore[valid-type]
    shape: list[Annotated[int, Field(ge=0, lt=2**40)]]
    data_offsets: tuple[int, int]  # from the end of the table

    @property
    def bytes(self) -> int:
        """Return its length in the file."""
        return math.prod(self.shape) * self.numpy_dtype.itemsize

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Return the type of its elements."""
        return np.dtype(_DTYPES[self.dtype])

    def of(self, content: Content, table_end: int) -> Tensor:
        """Return the tensor as a view."""
        count, offset = math.prod(self.shape), table_end + self.data_offsets[0]
        return np.frombuffer(content, self.numpy_dtype, count, offset).reshape(self.shape)


METADATA = "__metadata__"  # free texts
_TABLE = TypeAdapter(dict[str, TensorEntry | dict[str, str]])


def require_same_tensors(
    expected: Weights, actual: Weights, *, sender: str, error: type[FleetError] = UpdateError
) -> None:
    """Raise `error` unless `actual` has the names, shapes, dtypes of `expected` and is finite."""
    for name, tensor in expected.items():
        if name not in actual:
            raise error(
                f"{sender}: lacks {name} of shape {tensor.shape}; was it built from the same "
                "workload?"
            )
        if actual[name].shape != tensor.shape:
            raise error(
                f"{sender}: {name} has shape {actual[name].shape}, expected {tensor.shape}; was it "
                "built from the same workload?"
            )
        if actual[name].dtype != tensor.dtype:
            raise error(f"{sender}: {name} is {actual[name].dtype}, expected {tensor.dtype}")
        if not np.isfinite(actual[name]).all():
            raise error(f"{sender}: {name} holds NaN or infinity, expected finite numbers")
    if unknown := sorted(actual.keys() - expected.keys()):
        raise error(f"{sender}: has the unknown tensor {one_line(unknown[0][:100])}")


def difference(after: Weights, before: Weights) -> Weights:
    """Return after - before, tensor by tensor."""
    return {name: after[name] - before[name] for name in before}


def add(base: Weights, change: Weights) -> Weights:
    """Return base + change, tensor by tensor."""
    return {name: base[name] + change[name] for name in base}


def l2_norm(weights: Weights) -> float:
    """Return the Euclidean length of all tensors taken as one vector."""
    return float(np.sqrt(sum(float(np.vdot(w, w)) for w in weights.values())))


def size_bytes(weights: Weights) -> int:
    """Return the bytes of all tensors."""
    return sum(tensor.nbytes for tensor in weights.values())


def write_weights(path: Path, weights: Weights, texts: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file in one step; no second copy of the tensors is made."""
    ordered = sorted(weights.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    with writing(path) as stream:
        stream.writelines(safetensors_pieces(dict(ordered), texts))


def read_weights(path: Path) -> Weights:
    """Read a safetensors file; the tensors are read-only views of the mapped file.

    The kernel reads a tensor when it is used and may drop it again: a file of 2 GB needs no 2 GB of
    memory. Replace such a file by renaming, never by writing into it, while it may be in use.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return view_safetensors(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: no such file") from None
    except (ValueError, OSError) as reason:
        raise CheckpointError(
            f"{path.name}: not a readable safetensors file ({reason}); restore it from a backup"
        ) from None


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the free texts of a safetensors file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            table = _TABLE.validate_json(stream.read(min(size, _MAX_TABLE_BYTES)))
    except (ValueError, OSError):
        raise CheckpointError(f"{path.name}: not a readable safetensors file") from None
    texts = table.get(METADATA, {})
    return texts if isinstance(texts, dict) else {}


def safetensors_pieces(
    weights: Weights, texts: Mapping[str, str] | None = None
) -> list[memoryview]:
    """Return a safetensors file in pieces, most of them the tensors' own memory.

    The format is a length of 8 bytes, a JSON table padded to 8 bytes, and the tensors' bytes one
    after another (https://github.com/huggingface/safetensors). `safetensors.numpy.save` holds two
    copies of all tensors at once.

    Raises:
        ValueError: a tensor's dtype has no name in the format.
    """
    table: dict[str, Any] = {METADATA: dict(texts)} if texts else {}
    tensors, end = [], 0
    for name, tensor in weights.items():
        tensor = np.asarray(tensor, order="C")
        shape, dtype = list(tensor.shape), _NAMES.get(tensor.dtype)
        if dtype is None:
            raise ValueError(f"{name} is {tensor.dtype}, which a safetensors file cannot hold")
        begin, end = end, end + tensor.nbytes
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        tensors.append(tensor.reshape(-1).view(np.uint8).data)
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *tensors]


def view_safetensors(content: Content) -> Weights:
    """Return the tensors of a safetensors file as views of its bytes, in the order of the table.

    Raises:
        ValueError: the bytes are no such file, or the table does not fit them exactly.
    """
    size = len(content)
    begin = 8 + int.from_bytes(content[:8], "little")
    if not 8 < begin <= min(size, _MAX_TABLE_BYTES):
        raise ValueError(f"{size} bytes cannot hold its table")
    entries = parse_table(content[8:begin], size - begin)
    return {name: entry.of(content, begin) for name, entry in entries.items()}


def parse_table(text: bytes, size: int) -> Mapping[str, TensorEntry]:
    """Return the table of a safetensors file, whose tensors have `size` bytes together.

    Raises:
        ValueError: it is no table, or does not fit them exactly.
    """
    try:
        table = _TABLE.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"its table is damaged: {error.errors()[0]['msg']}") from None
    table.pop(METADATA, None)
    entries = {name: entry for name, entry in table.items() if isinstance(entry, TensorEntry)}
    if len(entries) < len(table):
        raise ValueError("its table has a tensor without shape")
    _require_no_gaps(entries.values(), size)
    return entries


def _require_no_gaps(entries: Iterable[TensorEntry], size: int) -> None:
    end = 0
    for first, last, tensor_bytes in sorted((*e.data_offsets, e.bytes) for e in entries):
        if first != end or last != first + tensor_bytes:
            raise ValueError("its tensors overlap or leave gaps")
        end = last
    if end != size:
        raise ValueError(f"its tensors have {size} bytes, expected {end}")


def join_groups(weights: Weights, groups: Mapping[str, Weights]) -> Weights:
    """Return the tensors of an update and of further groups in one mapping, for one file.

    Without groups the names stay as they are, so that files without them read as ever.
    """
    if not groups:
        return weights
    every = {"": weights, **groups}
    return {f"{group}/{name}": t for group in every for name, t in every[group].items()}


def joined_name(name: str, groups: Collection[str]) -> str:
    """Return the name that a tensor of the update has in `join_groups`."""
    return f"/{name}" if groups else name


def split_groups(
    tensors: Weights, groups: Collection[str]
) -> tuple[Weights, Mapping[str, Weights]]:
    """Undo `join_groups`; raises KeyError for a tensor of another group."""
    if not groups:
        return tensors, {}
    every: dict[str, dict[str, Tensor]] = {group: {} for group in ("", *groups)}
    for name, tensor in tensors.items():
        group, _, own = name.partition("/")
        every[group][own] = tensor
    return every.pop(""), every
