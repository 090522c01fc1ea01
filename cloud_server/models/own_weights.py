"""Where a model may start: a server's checkpoint, an export, a user's own file.

Nothing heavy is imported, so that a file of another kind is refused at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cloud_server.models.adapters import merged_weights
from cloud_server.state.checkpoints import ABOUT, WEIGHTS, Checkpoints
from fleet_model.bundle import TRAINER, parse_trainer, require_file
from fleet_model.errors import BundleError, CheckpointError
from fleet_model.signatures import BASE, FROZEN
from fleet_model.types import Tensor, Weights
from fleet_model.weights import read_metadata, read_weights
from fleet_model.workload import rebuild

LABELS = "fleetlearn.labels"  # in exports: the names of the rows, a JSON list
KINDS = ".keras, .npz, .safetensors, or a folder of DIR/checkpoints"
_HDF5 = (
    "in the old HDF5 format; load it with the TensorFlow that wrote it (2.15 or earlier) and save "
    "it again: model.save('model.keras')"
)
_PYTORCH = "of PyTorch; build the same model in Keras, set its weights, and save it as .keras"
_RUNS = "for inference alone; export the version again with --format safetensors or keras"
_REFUSED: Mapping[str, str] = {
    ".h5": _HDF5, ".hdf5": _HDF5, ".tflite": _RUNS, ".onnx": _RUNS,
    ".pt": _PYTORCH, ".pth": _PYTORCH, ".bin": _PYTORCH, ".ckpt": _PYTORCH,
}  # fmt: skip
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


class Named(NamedTuple):
    """A file whose tensors have the paths of a model's variables."""

    tensors: Weights
    labels: tuple[str, ...]  # of its rows, in their order; none: not known


@dataclass(frozen=True, slots=True)
class Rows:
    """Which tensors of a model have a row for each label, and how rows find their place.

    A label that the file lacks begins as the mean of the rows that were taken over. Its output is
    then never the largest, so no answer of the model changes before it has been trained.
    """

    labels: Sequence[str] = ()
    axes: Mapping[str, int] = field(default_factory=dict)  # path -> axis of the rows
    former: Mapping[str, str] = field(default_factory=dict)  # name in the file -> name here

    def shape(self, path: str, shape: Sequence[int], theirs: Sequence[str]) -> tuple[int, ...]:
        """Return what the file must hold where the model has `shape`."""
        shape = list(shape)
        if theirs and path in self.axes:
            shape[self.axes[path]] = len(theirs)
        return tuple(shape)

    def placed(self, path: str, tensor: Tensor, theirs: Sequence[str]) -> Tensor:
        """Return the tensor of the file with a row for each label here."""
        if not theirs or path not in self.axes:
            return tensor
        rows = np.moveaxis(tensor, self.axes[path], 0)
        at = {self.former.get(label, label): row for row, label in enumerate(theirs)}
        taken = [at[label] for label in self.labels if label in at]
        mean = rows[taken or slice(None)].mean(0, dtype=np.float64).astype(tensor.dtype)
        found = [rows[at[label]] if label in at else mean for label in self.labels]
        return np.ascontiguousarray(np.moveaxis(np.stack(found), 0, self.axes[path]))

    def told(self, theirs: Sequence[str]) -> str:
        """Return what became of the rows, in words; "" where they are the same."""
        names = [self.former.get(label, label) for label in theirs]
        if not theirs or not self.axes or names == list(self.labels):
            return ""
        parts = {
            "taken by name": [label for label in self.labels if label in names],
            "new, to begin with the mean of the others": [
                label for label in self.labels if label not in names
            ],
            "left out": [label for label in names if label not in self.labels],
        }
        return "; ".join(f"{what}: {', '.join(found)}" for what, found in parts.items() if found)


def require_kind(path: Path) -> None:
    """Raise CheckpointError for what no model can start from, by its name and first bytes."""
    if not path.exists():
        raise CheckpointError(f"{path.name}: no such file")
    if path.is_dir():
        if _folder(path) is None:
            raise CheckpointError(f"{path.name}: not a checkpoint of a server; expected {KINDS}")
        return
    if words := _REFUSED.get(path.suffix.lower()):
        raise CheckpointError(f"{path.name}: a file {words}")
    if path.suffix not in (".keras", ".npz", ".safetensors"):
        raise CheckpointError(f"{path.name}: expected {KINDS}")
    if path.suffix == ".keras":
        with path.open("rb") as stream:
            if stream.read(8) == _HDF5_MAGIC:
                raise CheckpointError(f"{path.name}: a file {_HDF5}")


def read_named(path: Path) -> Named | None:
    """Return the tensors of a server's checkpoint or of an export; None for other kinds of files.

    Raises:
        CheckpointError: it is damaged, or lies apart from the server directory it belongs to.
    """
    if (folder := _folder(path)) is not None:
        return _of_server(folder)
    if path.suffix != ".safetensors":
        return None
    return Named(read_weights(path), parse_labels(read_metadata(path).get(LABELS, "")))


def model_of(path: Path) -> Path | None:
    """Return the model directory of a server's checkpoint; None of another file or folder."""
    if (folder := _folder(path)) is None:
        return None
    folder = folder.absolute()
    return folder.parents[1] / Checkpoints(folder.parent).model(int(folder.name))


def parse_labels(text: str | bytes) -> tuple[str, ...]:
    """Return what an export of ours says of its rows; () of anything else."""
    try:
        return TypeAdapter(tuple[str, ...]).validate_json(text)
    except ValidationError:
        return ()


def _folder(path: Path) -> Path | None:
    """Return the checkpoint's folder that a path means: a server directory is its newest one."""
    if path.name == WEIGHTS and (path.parent / ABOUT).exists():
        return path.parent
    if (path / ABOUT).exists():
        return path
    newest = Checkpoints(path / "checkpoints").newest()
    return None if newest is None else path / "checkpoints" / f"{newest:06d}"


def _of_server(folder: Path) -> Named:
    checkpoints, home = Checkpoints(folder.absolute().parent), folder.absolute().parents[1]
    model = home / checkpoints.model(int(folder.name))
    checkpoints.load(int(folder.name))  # whole?
    try:
        spec = parse_trainer((model / TRAINER).read_bytes())
        for name in (FROZEN, BASE):
            if name in spec.files:
                require_file(model / name, spec.files[name])
    except (OSError, BundleError):
        raise CheckpointError(
            f"checkpoint {folder.name}: what is not trained, and the labels, are in the folder "
            f"{model.name} of its server directory, which is missing or damaged; copy the whole "
            "directory, or take an export: cloud-server models export DIR --format safetensors"
        ) from None
    if spec.adapter is not None and BASE not in spec.files:
        raise CheckpointError(
            f"checkpoint {folder.name}: holds adapters of a model that lies in a file of its own; "
            "take them as cloud-server models export DIR --format peft"
        )
    frozen = read_weights(model / FROZEN) if FROZEN in spec.files else {}
    weights = merged_weights(spec, model, checkpoints.path(int(folder.name)))
    return Named({**frozen, **weights}, rebuild(spec.workload).task.classes)
