"""Models side by side, and what was asked of them; a page shows one line-up."""

from collections.abc import Sequence
from typing import Any

from cloud_server.console.compare.board import Board
from cloud_server.console.compare.contenders import PICTURE, Contender
from cloud_server.console.compare.process import Process
from cloud_server.console.compare.uploads import (
    MOST_PICTURE_BYTES,
    MOST_TEXT_BYTES,
    require_picture,
)


class Lineup:
    """Thread-safe; whoever makes one closes it."""

    def __init__(self, contenders: Sequence[Contender]) -> None:
        """Open the models; raises FleetError as Process.models."""
        self.process, self.board = Process(contenders), Board(len(contenders))
        self.models = self.process.models()
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

    def close(self) -> None:
        """End the process that computes."""
        self.process.close()
