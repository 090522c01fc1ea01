"""Frozen features of a robot's examples, in memory and from one training process to the next."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fleet_model import __version__
from fleet_model.errors import CheckpointError, TrainingError
from fleet_model.signatures import FEATURES
from fleet_model.types import Tensor, Tensors
from fleet_model.weights import read_weights, size_bytes, write_weights

# 100,000 rows of EfficientNet-Lite0 features (1280 float32), or 2,600 float images of 128 pixels.
CACHE_BYTES = 512_000_000
# On disk, 12,500 such rows: beyond it, reading and writing would cost more than it saves.
KEPT_BYTES = 64_000_000
FOLDER = "features"  # in a trainer's directory
log = logging.getLogger(__name__)


class FeatureCache:
    """Frozen features by Example.key, kept between rounds: a frame passes the trunk once.

    A round is `begin()`, `row()` for each example, `end()`, which drops the keys that vanished.
    A row is named tensors, which keep the dtype they come in. They are separate arrays, so that
    dropping and adding keys never copies the others: memory stays at the size of the rows.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: int = CACHE_BYTES) -> None:
        """Start with what an earlier process has kept.

        Args:
            folder: the rows are kept in here between processes, if it exists. It must belong to one
                trunk, as the trainer's own directory does.
            limit_bytes: of all rows of a round.
        """
        self._limit_bytes = limit_bytes
        # Another version may cut or scale pictures in another way: its rows are not ours.
        self._file = folder / f"{__version__}.safetensors" if folder and folder.is_dir() else None
        self._rows: dict[str, Tensors] = {}  # asked for in this round
        self._earlier = _read(self._file)  # not yet asked for in this round
        self._size_bytes = sum(map(size_bytes, self._earlier.values()))
        self._kept = set(self._earlier)

    def begin(self) -> None:
        """Start a round; what an unfinished one computed stays."""
        self._earlier.update(self._rows)
        self._rows = {}

    def row(self, key: str, compute: Callable[[], Tensors]) -> Tensors:
        """Return the features of `key`, computed only if they are not here yet.

        Raises:
            TrainingError: the rows of this round alone would take more memory than allowed.
        """
        row = self._earlier.pop(key, None)
        if row is None:
            row = {name: np.asarray(tensor, order="C") for name, tensor in compute().items()}
            self._make_room(size_bytes(row))
            self._size_bytes += size_bytes(row)
        self._rows[key] = row
        return row

    def end(self) -> None:
        """Drop the rows that this round has not asked for; keep the others for later processes."""
        self._drop_earlier()
        if self._file and self._rows.keys() != self._kept and self._size_bytes <= KEPT_BYTES:
            try:
                write_weights(self._file, _flat(self._rows))
            except OSError as error:  # a full disk: the next process computes them again
                log.warning("features are not kept: %s", error.strerror)
            self._kept = set(self._rows)

    def _drop_earlier(self) -> None:
        self._size_bytes -= sum(map(size_bytes, self._earlier.values()))
        self._earlier.clear()

    def _make_room(self, needed_bytes: int) -> None:
        if self._size_bytes + needed_bytes > self._limit_bytes:
            self._drop_earlier()
        if self._size_bytes + needed_bytes > self._limit_bytes:
            raise TrainingError(
                f"the features of {len(self._rows) + 1} examples need more than "
                f"{self._limit_bytes / 1e6:.0f} MB; keep fewer examples on this robot"
            )

    def __contains__(self, key: str) -> bool:
        return key in self._earlier

    def __len__(self) -> int:
        return len(self._rows) + len(self._earlier)


def _flat(rows: Mapping[str, Tensors]) -> dict[str, Tensor]:
    return {f"{key}\n{name}": tensor for key, row in rows.items() for name, tensor in row.items()}


def _read(file: Path | None) -> dict[str, Tensors]:
    """Return the kept rows; none if there are none, or if they cannot be read."""
    if file is None or not file.exists():
        return {}
    rows: dict[str, dict[str, Tensor]] = {}
    try:
        for path, tensor in read_weights(file).items():
            key, _, name = path.partition("\n")  # 0.1.0 kept one tensor per key, without a name
            rows.setdefault(key, {})[name or FEATURES] = tensor
    except (CheckpointError, OSError) as error:
        log.warning("kept features: %s; they are computed again", error)
        return {}
    return dict(rows)
