"""Frozen features of a robot's examples, in memory and from one training process to the next."""

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge_agent.training.feature_file import FeatureFile
from fleet_model import __version__
from fleet_model.bundle import TrainerSpec
from fleet_model.signatures import BASE, TRAINER_GRAPH
from fleet_model.types import Tensors
from fleet_model.weights import size_bytes
from fleet_model.workload import Workload, config_without_classes

FOLDER = "features"  # in a trainer's directory
# 100,000 rows of EfficientNet-Lite0 features (1280 float32), or 2,600 float images of 128 pixels.
CACHE_MB = 512
# A row of so many bytes stays in the file while it trains: maps of 180 kB, of 1,000 frames, would
# take 180 MB, and reading one costs little beside its part of a step (0.02 and 3 ms). A text of 25
# tokens between two layers of MiniLM has 38 kB, and there may be many.
LARGE_BYTES = 1 << 14
# The file is written again when this share of it is dead; the second, when rows have no room in it.
_MOSTLY, _SCARCE = 2, 8
# Raised when pictures are read, turned, cut or scaled in another way: earlier rows are not ours.
PICTURES = 3  # large JPEGs at half or a quarter of their size, photos upright
LIMIT = "EDGE_AGENT_TRAINING__CACHE_MB"  # of the training process: how its agent passes it on
log = logging.getLogger(__name__)


class FeatureCache:
    """Frozen features by Example.key, kept between rounds: a frame passes the trunk once.

    A round is `begin()`, `row()` for each example, `end()`, which drops the keys that vanished.
    Rows beyond the limit are computed in every round, always the same ones as long as the examples
    are the same; it is never an error.

    A row is named tensors, which keep the dtype they come in. They are separate arrays, so that
    dropping and adding keys never copies the others: memory stays at the size of the rows. Those of
    an earlier process are read one by one when they are asked for. Large ones that are in the file
    are never in memory: what `row` returns reads a tensor whenever it is looked at.
    """

    def __init__(
        self, folder: Path | None = None, owner: str = "", *, limit_bytes: int | None = None
    ) -> None:
        """Start with what an earlier process has kept.

        Args:
            folder: the rows are kept in here between processes, if it exists.
            owner: what computes the rows: those of another one are not used.
            limit_bytes: of all rows of a round, in memory and on disk; None takes the agent's.
        """
        self._limit_bytes = limit_from_environment() if limit_bytes is None else limit_bytes
        self._rows: dict[str, Tensors] = {}  # asked for in this round
        self._earlier: dict[str, Tensors] = {}  # in memory, not yet asked for in this round
        self._size_bytes = 0  # of both
        self._asked: set[str] = set()
        self._file = _open(folder, owner)

    def begin(self) -> None:
        """Start a round; what an unfinished one computed stays."""
        self._earlier.update(self._rows)
        self._rows, self._asked = {}, set()

    def row(self, key: str, compute: Callable[[], Tensors]) -> Tensors:
        """Return the features of `key`, computed only if they are not here yet."""
        self._asked.add(key)
        row = self._rows.get(key) or self._earlier.pop(key, None)
        if row is not None:
            self._rows[key] = row
            return row
        row = self._read(key)
        if row is None:
            row = {name: np.asarray(tensor, order="C") for name, tensor in compute().items()}
            self._append(key, row)
        if size_bytes(row) >= LARGE_BYTES and self._file and key in self._file:
            return self._file.left(key)
        self._remember(key, row)
        return row

    def end(self) -> None:
        """Drop the rows that this round has not asked for; keep the others for later processes."""
        self._drop_earlier()
        if self._file is None:
            return
        try:
            self._tidy(self._file)
        except OSError as error:
            self._give_up(error)

    def _tidy(self, file: FeatureFile) -> None:
        """Make the file smaller where that is worth writing the rest of it again."""
        without_room = [key for key in self._rows if key not in file]
        dead_bytes = file.dead_bytes(self._asked)
        if dead_bytes * (_SCARCE if without_room else _MOSTLY) > file.size_bytes:
            file.compact(self._asked)
            for key in without_room:
                file.append(key, self._rows[key], self._limit_bytes)

    def _read(self, key: str) -> Tensors | None:
        try:
            return self._file.read(key) if self._file else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._give_up(error)
            return None

    def _append(self, key: str, row: Tensors) -> None:
        try:
            if self._file:
                self._file.append(key, row, self._limit_bytes)
        except OSError as error:
            self._give_up(error)

    def _remember(self, key: str, row: Tensors) -> None:
        """Keep a row in memory as far as there is room."""
        if self._size_bytes + size_bytes(row) > self._limit_bytes:
            self._drop_earlier()
        if self._size_bytes + size_bytes(row) <= self._limit_bytes:
            self._rows[key] = row
            self._size_bytes += size_bytes(row)

    def _drop_earlier(self) -> None:
        self._size_bytes -= sum(map(size_bytes, self._earlier.values()))
        self._earlier.clear()

    def _give_up(self, error: Exception) -> None:
        """Continue in memory only: the next process computes the rows again."""
        log.warning("features are not kept: %s", getattr(error, "strerror", None) or error)
        self._file = None  # not closed: rows that were left in it are read from it

    def __contains__(self, key: str) -> bool:
        in_file = self._file is not None and key in self._file
        return key in self._rows or key in self._earlier or in_file

    def __len__(self) -> int:
        return len(self._rows) + len(self._earlier)


def cache_of(
    spec: TrainerSpec, workload: Workload, directory: Path, framework: str
) -> FeatureCache:
    """Return the cache in a trainer's directory.

    Rows are used if they come from the same trunk and the same encoding: another list of labels
    changes neither. Rows of another framework are not: the last bits of its trunk differ.
    """
    behind = (TRAINER_GRAPH, BASE)  # the trunk
    files = {n: spec.files[n].sha256 for n in spec.parts.get(framework, ()) if n not in behind}
    owner = [framework, spec.workload.name, config_without_classes(workload), spec.trainable, files]
    return FeatureCache(directory / FOLDER, json.dumps(owner, sort_keys=True))


def limit_from_environment() -> int:
    """Return in bytes what the agent allows its training process; CACHE_MB without it."""
    value = os.environ.get(LIMIT, "")
    try:
        megabytes = float(value) if value else CACHE_MB
    except ValueError:
        megabytes = CACHE_MB
    return round(megabytes * 1e6)


def _open(folder: Path | None, owner: str) -> FeatureFile | None:
    if folder is None or not folder.is_dir():
        return None
    release = f"{__version__}-{PICTURES}"
    file = folder / f"{release}.rows"
    with suppress(OSError):
        for other in folder.iterdir():
            if other != file:  # also what 0.1.0 kept before there were rows: <version>.safetensors
                log.info("features that another release has kept are computed again")
                other.unlink(missing_ok=True)
    try:
        return FeatureFile(file, f"{release} {owner}")
    except (OSError, ValueError, KeyError) as error:
        log.warning("kept features: %s; they are computed again", error)
        with suppress(OSError):
            file.unlink(missing_ok=True)
        return None
