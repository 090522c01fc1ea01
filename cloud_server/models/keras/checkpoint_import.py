"""Give a Keras model the weights of a file: a server's checkpoint, an export, a user's own.

Files come from elsewhere, so nothing in them is run, and no size in them is believed before it is
compared with the model. Keras is imported only for .keras files.
"""

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_server.models.own_weights import (
    LABELS,
    Named,
    Rows,
    parse_labels,
    read_named,
    require_kind,
)
from fleet_model.errors import CheckpointError
from fleet_model.types import Tensor, Weights

if TYPE_CHECKING:
    import keras

# Of the model's own size: float64, or a .keras file with two Adam slots a variable.
_MAX_EXPANSION, _OVERHEAD_BYTES = 4, 16_000_000
_HEADERS: Mapping[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


NO_ROWS = Rows()
_ADVICE = "was it trained with the same backbone and the same number of labels?"
_KINDS = {
    "i": "whole numbers, as the state of a PyTorch model does; its shapes and order are others: "
    "build the model in Keras, set its weights, and save it as .keras",
    "O": "Python objects, as Flower's Parameters do; save arrays: "
    "np.savez(file, *parameters_to_ndarrays(parameters))",
}


class _Found(NamedTuple):
    """One tensor of the file."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def import_checkpoint(file: Path, model: "keras.Model", rows: Rows = NO_ROWS) -> str:
    """Give `model` the weights of a file; if it does not fit, the model stays as it is.

    A server's checkpoint, `.safetensors`: tensors are matched by variable path.
    `.keras`: by variable path where the paths agree, else in model order.
    `.npz`: arr_0, arr_1, ... as `model.get_weights()` lists them (round-N-weights.npz).
    Where the file says what its labels are, rows are matched by label, else in their order.

    Returns:
        What became of the rows, in words; "" where the labels are the same or not known.

    Raises:
        CheckpointError: names the first tensor that does not fit, or why the file is not read.
    """
    require_kind(file)
    named = read_named(file)
    labels: Sequence[str] = ()
    if named is not None:
        weights, labels = _by_name(file, named, model, rows), named.labels
    elif file.suffix == ".keras":
        labels = labels_in(file)
        weights = _read_keras(file, model, rows, labels)
    else:
        weights = _read_npz(file, model)
    for variable in model.weights:
        variable.assign(weights[variable.path])
    return rows.told(labels)


def _by_name(file: Path, named: Named, model: "keras.Model", rows: Rows) -> Weights:
    for variable in model.weights:
        if variable.path not in named.tensors:
            raise CheckpointError(f"{file.name}: has no tensor {variable.path}; {_ADVICE}")
    found = []
    for path in [v.path for v in model.weights]:
        tensor = named.tensors[path]
        found.append(_Found(path, tensor.shape, lambda tensor=tensor: tensor))  # type: ignore[misc]
    return _matched(file, found, model.weights, rows, named.labels)


def labels_in(file: Path) -> tuple[str, ...]:
    """Return what an export of ours says of its rows; () of another file."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(LABELS) as stream:
            return parse_labels(stream.read(_OVERHEAD_BYTES))
    except (KeyError, OSError, zipfile.BadZipFile, zlib.error, RuntimeError):
        return ()


def _read_keras(file: Path, model: "keras.Model", rows: Rows, labels: Sequence[str]) -> Weights:
    import keras

    _require_plausible_size(file, model)
    try:
        saved = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as reason:  # noqa: BLE001  (Keras raises whatever its layers raise)
        text = str(reason).replace(str(file), file.name).strip().partition("\n")[0]
        raise CheckpointError(
            f"{file.name}: Keras does not load it: {text[:300]} (code inside a file, such as a "
            "Lambda layer, is never run; save the model again without it)"
        ) from None
    by_path = {v.path: v for v in saved.weights}
    same_paths = by_path.keys() == {v.path for v in model.weights}
    ordered = [by_path[v.path] for v in model.weights] if same_paths else saved.weights
    found = [_Found(v.path, tuple(v.shape), v.numpy) for v in ordered]
    return _matched(file, found, model.weights, rows, labels)


def _read_npz(file: Path, model: "keras.Model") -> Weights:
    _require_plausible_size(file, model)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
            names = [f"arr_{i}" for i in range(len(members))]
            if sorted(members) != sorted(f"{name}.npy" for name in names):
                raise CheckpointError(
                    f"{file.name}: holds {', '.join(sorted(members)[:3])} ..., expected arr_0, "
                    "arr_1, ... as np.savez(file, *model.get_weights()) writes them"
                )
            found = [_npy_member(archive, name) for name in names]
            return _matched(file, found, model.weights)
    except (
        zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError,
        RuntimeError, NotImplementedError,  # encrypted, or compressed in an unknown way
    ) as reason:  # fmt: skip
        raise CheckpointError(f"{file.name}: not a readable .npz file: {reason}") from None


def _npy_member(archive: zipfile.ZipFile, name: str) -> _Found:
    with archive.open(f"{name}.npy") as stream:
        shape, fortran_order, dtype = _npy_header(stream, name)

    def read() -> Tensor:
        with archive.open(f"{name}.npy") as stream:
            _npy_header(stream, name)
            count = int(np.prod(shape))
            values = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
        if values.size != count:
            raise ValueError(f"{name} is cut short")
        return values.reshape(shape, order="F" if fortran_order else "C")

    return _Found(name, shape, read)


def _npy_header(stream: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape and dtype alone: objects (pickles) are refused before their bytes are read."""
    read = _HEADERS.get(np.lib.format.read_magic(stream))
    if read is None:
        raise ValueError(f"{name} has an unknown format")
    shape, fortran_order, dtype = read(stream)
    if dtype.kind != "f":
        words = _KINDS.get(dtype.kind, f"{dtype}, expected floating point numbers")
        raise ValueError(f"{name} holds {words}")
    return shape, fortran_order, dtype


def _matched(
    file: Path,
    found: Sequence[_Found],
    expected: "Sequence[keras.Variable]",
    rows: Rows = NO_ROWS,
    labels: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Return path -> float32; the shapes of all tensors are compared before one is read."""
    for theirs, ours in zip(found, expected, strict=False):
        if theirs.shape != (shape := rows.shape(ours.path, ours.shape, labels)):
            raise CheckpointError(
                f"{file.name}: {theirs.name} has shape {theirs.shape}, {ours.path} of this "
                f"workload has {shape}; {_ADVICE}"
            )
    if len(found) != len(expected):
        extra, missing = found[len(expected) :], expected[len(found) :]
        which = f"{extra[0].name} is too many" if extra else f"{missing[0].path} is missing"
        raise CheckpointError(
            f"{file.name}: has {len(found)} tensors, this workload {len(expected)}: {which}; "
            f"{_ADVICE}"
        )
    weights = {}
    for theirs, ours in zip(found, expected, strict=True):
        tensor = theirs.read().astype(np.float32)
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{file.name}: {theirs.name} holds NaN or infinity")
        weights[ours.path] = rows.placed(ours.path, tensor, labels)
    return weights


def _require_plausible_size(file: Path, model: "keras.Model") -> None:
    """Refuse what would unpack to far more than the model holds (a zip bomb)."""
    expected = sum(int(np.prod(v.shape)) * 4 for v in model.weights)
    limit = _MAX_EXPANSION * expected + _OVERHEAD_BYTES
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{file.name}: not a {file.suffix} file (those are zip archives); copy it again"
        ) from None
    if size > limit:
        raise CheckpointError(
            f"{file.name}: unpacks to {size} bytes, expected at most {limit} for a model of "
            f"{expected} bytes"
        )
