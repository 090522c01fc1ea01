"""Named tensors as Flower arrays, and back: whatever a stranger sends is one, or is refused."""

import math
import re
from collections.abc import Collection, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from fleet_model.compression.codec import CODED
from fleet_model.errors import UpdateError, one_line
from fleet_model.types import Tensor, Weights

# Record names are those of flwr.serverapp.strategy.FedAvg, so that stock tools can read along.
ARRAYS, GROUP = "arrays", "arrays."
MAX_GROUPS = 8
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")  # of kinds and groups
# What np.save writes for float32 tensors, for float16 ones of some groups, and for bytes. np.load
# would believe any header: it reserves memory for any shape that it is told, and opens zip files.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '(<f[24]|\|u1)', 'fortran_order': False, 'shape': \(([0-9, ]*)\), \} *\n",
    re.DOTALL,
)


def pack_weights(weights: Weights) -> ArrayRecord:
    """Tensors by name -> Flower arrays by the same name."""
    return ArrayRecord({name: Array(np.asarray(w, order="C")) for name, w in weights.items()})


def unpack_weights(record: ArrayRecord) -> Weights:
    """Flower arrays -> tensors by name; raises UpdateError unless they are whole floats."""
    return {name: _tensor(name, array.data) for name, array in record.items()}


def pack_groups(groups: Mapping[str, Weights]) -> dict[str, ArrayRecord]:
    """Further groups of tensors -> their records by name."""
    return {GROUP + name: pack_weights(tensors) for name, tensors in groups.items()}


def unpack_groups(content: RecordDict) -> Mapping[str, Weights]:
    """Return the further groups of a message; raises UpdateError."""
    found = {name: r for name, r in content.array_records.items() if name != ARRAYS}
    if len(found) > MAX_GROUPS:
        raise UpdateError(f"{len(found)} groups of tensors, expected at most {MAX_GROUPS}")
    groups = {}
    for name, record in found.items():
        group = name.removeprefix(GROUP)
        if group == name or not NAME.fullmatch(group):
            raise UpdateError(f"{name!r:.60} is no name of a group of tensors")
        groups[group] = unpack_weights(record)
    return groups


def unpack_coded(record: ArrayRecord) -> Tensor:
    """Return the bytes of a coded update; raises UpdateError."""
    if list(record) != [CODED]:
        raise UpdateError(f"a coded update holds {len(record)} arrays, expected one, {CODED!r}")
    return _array(CODED, record[CODED].data, ("|u1",), "run of bytes").reshape(-1)


def _tensor(name: str, data: bytes) -> Tensor:
    return _array(name, data, ("<f4", "<f2"), "float32 tensor")


def _array(name: str, data: bytes, dtypes: Collection[str], what: str) -> Tensor:
    header = _NPY.match(data, 0, 1024)
    if header is None or (kind := header[1].decode()) not in dtypes:
        raise UpdateError(f"{_named(name)} is not a {what} as numpy.save writes it")
    shape = tuple(int(length) for length in header[2].replace(b" ", b"").split(b",") if length)
    dtype = np.dtype(kind)
    if len(data) - header.end() != dtype.itemsize * math.prod(shape):
        raise UpdateError(f"{_named(name)}: the bytes do not fit its shape")
    try:
        # A view, read-only: a copy of a whole model is what a server has no memory for.
        return np.frombuffer(data, dtype, offset=header.end()).reshape(shape)
    except ValueError:  # empty, but of more axes or longer ones than there can be
        raise UpdateError(f"{_named(name)}: no tensor can have its shape") from None


def _named(name: str) -> str:
    """Return the other side's name for a tensor, as far as a message may quote it."""
    return one_line(name[:100])
