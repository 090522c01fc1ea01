"""Models side by side, and what was asked of them; a page shows one line-up."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from cloud_server.console.compare.batch import RUNNING, Batch
from cloud_server.console.compare.board import Board
from cloud_server.console.compare.contenders import PICTURE, Contender
from cloud_server.console.compare.data_sets import Input, read_data_set
from cloud_server.console.compare.process import Process
from cloud_server.console.compare.uploads import (
    MOST_PICTURE_BYTES,
    MOST_TEXT_BYTES,
    require_picture,
)
from fleet_model.errors import BusyError, FrameError


class Lineup:
    """Thread-safe; whoever makes one closes it."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        """Open the models; raises FleetError as Process.models."""
        self.process, self.board = Process(contenders), Board(len(contenders))
        self.models = self.process.models()
        self.batch: Batch | None = None  # the latest
        self._lock = Lock()
        self.takes: str = self.models[0]["takes"]  # PICTURE or TEXT
        self.classes: Sequence[str] = self.models[0]["classes"]

    @property
    def most_bytes(self) -> int:
        """Return how long an input may be."""
        return MOST_PICTURE_BYTES if self.takes == PICTURE else MOST_TEXT_BYTES

    @property
    def has_classes(self) -> bool:
        """Return whether a class is the answer, so that its truth can be told."""
        return bool(self.models[0]["answer"] == "class")

    def ask(self, content: bytes, truth: str = "") -> dict[str, Any]:
        """Return what the models say, see Answering.answer, and count it.

        Args:
            content: an image file, or a text in UTF-8.
            truth: its class; "" where nobody knows.

        Raises:
            FrameError: it cannot be read, or is more than a model should be shown.
            FleetError: as Process.answer.
        """
        if self.takes == PICTURE:
            require_picture(content)
        told = self.process.answer(content)
        self.board.add(told, truth if self.has_classes and truth in self.classes else "")
        return told

    def begin_batch(self, path: Path) -> None:
        """Ask about a data set; see batch.py.

        Raises:
            SettingsError: it has nothing that could be asked about.
            BusyError: another one goes on.
        """
        data = read_data_set(path, self.takes, self.classes if self.has_classes else ())
        with self._lock:
            if self.batch is not None and self.batch.state == RUNNING:
                raise BusyError("a data set is asked about already; stop that first")
            self.batch = Batch(self.process, data, takes=self.takes, has_classes=self.has_classes)

    def input(self, number: int) -> Input:
        """Return an input of the data set that was asked about; raises FrameError for none."""
        if self.batch is None or not 0 <= number < len(self.batch.data.inputs):
            raise FrameError("there is no such input; the data set was chosen anew")
        return self.batch.data.inputs[number]

    def preview(self, number: int, side: int) -> bytes:
        """Return a picture of the data set as a JPEG; raises as `ask`."""
        content = self.input(number).read()
        require_picture(content)
        return self.process.preview(content, side)

    def close(self) -> None:
        """End the process that computes, and a batch."""
        self.process.close()
        if self.batch is not None:
            self.batch.stop()
