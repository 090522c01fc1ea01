"""Where the weights of a new torch model come from."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cloud_server.models.backend import Origin
from cloud_server.models.own_weights import Named, Rows, model_of, read_named
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.torch.model import TorchModel
from fleet_model.torch.tensors import Slot, slots

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"


def started(definition: TorchModel, start: Origin | None, rows: Rows) -> tuple["nn.Module", str]:
    """Return the module with the weights that learning starts from, and what became of its rows.

    Args:
        definition: the workload's model.
        start: a folder of Hugging Face's layout, or a server's checkpoint or export.
        rows: which tensors have a row for each label.

    Raises:
        SettingsError: there is nothing to start from.
        CheckpointError: it does not fit.
    """
    if start is None:
        raise SettingsError(
            "this workload starts from an encoder: --checkpoint FOLDER, with "
            f"{', '.join((*definition.files, WEIGHTS))} and tokenizer.json"
        )
    named = read_named(start.file)
    if named is None or _is_folder(start.file, definition.files):
        return definition.load(start.file), ""
    directory = start.frozen or model_of(start.file)
    if directory is None:
        raise CheckpointError(
            f"{start.file.name}: says nothing of the encoder that it is of; name the server "
            "directory it was taken from, or a folder with config.json and tokenizer.json"
        )
    model = definition.build(directory)
    return model, _placed(start.file, slots(model, definition.path), named, rows)


def write_files(definition: TorchModel, start: Origin | None, into: Path) -> None:
    """Write what says how a model is built, from where its weights come from."""
    assert start is not None
    source = start.frozen or model_of(start.file) or start.file
    shared = getattr(definition, "shared", lambda name, content: content)
    for name in definition.files:
        (into / name).write_bytes(shared(name, (source / name).read_bytes()))


def _is_folder(path: Path, files: Collection[str]) -> bool:
    return path.is_dir() and all((path / name).is_file() for name in files)


def _placed(file: Path, found: Mapping[str, Slot], named: Named, rows: Rows) -> str:
    """Give a module the tensors of a server's checkpoint."""
    for path, slot in found.items():
        if path not in named.tensors:
            raise CheckpointError(f"{file.name}: has no tensor {path}; is it of another encoder?")
        tensor = named.tensors[path]
        if tensor.shape != (shape := rows.shape(path, slot.shape, named.labels)):
            raise CheckpointError(
                f"{file.name}: {path} has shape {tensor.shape}, this workload has {shape}"
            )
        slot.assign(np.array(rows.placed(path, tensor, named.labels)))
    return rows.told(named.labels)
