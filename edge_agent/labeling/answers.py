"""Keep what people answer: a log of all answers, and a data set of the frames that have a label.

    state/labels/
      answers.jsonl         one line an answer: frame, who, when, what; it is only appended to
      frames/               a data set as any other, which training reads: manifest.csv, pictures
      .lock                 of the process that writes

The picture comes first, under a hidden name, then the line of the log, then the row of the
manifest, then the picture's own name: a picture without a row would be an example in which nothing
is to be seen. An answer is given once its line is on disk. Whatever a kill or a power cut leaves
out behind that is done again, by the log, at the next start; a line that was cut, and a picture
without a line, are removed.
"""

import fcntl
import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edge_agent.data.extraction.files import FrameNames, image_file
from edge_agent.data.label_formats.data_set import largest_label
from edge_agent.data.manifest import MANIFEST, ManifestRow, encode_text, header_line, row_line
from edge_agent.labeling.answer import FRAMES, LABEL, LOG, UNDO, Answer, FrameName, read_answers
from fleet_model.durable import (
    appending,
    fsync_directory,
    make_directory,
    remove_asides,
    telling_of_the_disk,
    write_durably,
)
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import utc_now

_ADVICE = "make room there, or let this user write; the answers before are kept"


class Answers:
    """The one writer of a folder. One thread at a time; every method may raise StorageError."""

    def __init__(self, folder: Path, by: str, now: Callable[[], datetime] = utc_now) -> None:
        """Lock the folder and finish what a killed process has left.

        Args:
            folder: state/labels; it is made where it is missing.
            by: who answers.
            now: the clock.

        Raises:
            SettingsError: another process has it.
        """
        self._folder, self._by, self._now = folder, by, now
        self._frames = folder / FRAMES
        with self._disk():
            make_directory(self._frames)
            self._lock: int | None = locked(folder / ".lock", "edge-agent label")
            given = read_answers(folder)
            cut_unfinished(folder / LOG)
        self._given = given
        self._rows: dict[FrameName, tuple[str, str]] = {}  # picture, line of the manifest
        for answer in given:
            self._place(answer)
        with self._disk():
            remove_asides(self._frames)
            there = {file.name.removeprefix(".") for file in self._frames.iterdir()} - {MANIFEST}
            self._settle(there, used={answer.file for answer in given})

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def given(self) -> list[Answer]:
        """All answers that count, in their order; those that were taken back are not among them."""
        return self._given

    def known(self) -> Mapping[FrameName, Answer]:
        """Return the last answer of every frame."""
        return {answer.frame: answer for answer in self._given}

    def give(self, frame: Any, answer: Answer) -> Answer:
        """Keep an answer; it is on disk when this returns.

        Args:
            frame: a Frame or LazyFrame; its bytes are read where the answer is a label.
            answer: without who, when and file.

        Raises:
            FrameError: the frame cannot be read any more.
        """
        at = self._now().isoformat(timespec="seconds")
        answer = replace(answer, by=self._by, at=at)
        with self._disk():
            if answer.kind == LABEL:
                image = image_file(frame, "keep")
                name = FrameNames().name(*answer.frame)
                answer = replace(
                    answer,
                    label=answer.label or largest_label(answer.boxes),
                    file=f"{name}-{answer.frame.id[:8]}{image.suffix}",
                )
                write_durably(self._hidden(answer.file), bytes(image.data))
            before = self._picture_of(answer.frame)
            self._append(answer.line())
            self._given.append(answer)
            self._place(answer)
            self._settle({before, answer.file}, used={before, answer.file})
        return answer

    def undo(self) -> Answer | None:
        """Take the last answer back and return it; None without one."""
        if not self._given:
            return None
        at = self._now().isoformat(timespec="seconds")
        with self._disk():
            self._append(json.dumps({"kind": UNDO, "by": self._by, "at": at}).encode() + b"\n")
            gone = self._given.pop()
            self._rows.pop(gone.frame, None)
            earlier = [answer for answer in self._given if answer.frame == gone.frame]
            if earlier:
                self._place(earlier[-1])
            used = {answer.file for answer in earlier}
            self._settle({gone.file, *used}, used)
        return gone

    def _disk(self) -> AbstractContextManager[None]:
        return telling_of_the_disk(f"labels in {self._folder}", _ADVICE)

    def _append(self, line: bytes) -> None:
        with appending(self._folder / LOG) as stream:
            stream.write(line)

    def _place(self, answer: Answer) -> None:
        self._rows.pop(answer.frame, None)
        if answer.kind == LABEL:
            row = ManifestRow(
                file=answer.file,
                topic=answer.frame.topic,
                stamp_ns=answer.frame.stamp_ns,
                source=answer.frame.source,
                label=answer.label,
                width=answer.width,
                height=answer.height,
                boxes=answer.boxes,
                seen=not answer.label,  # neither boxes nor a label: a person sees nothing there
            )
            self._rows[answer.frame] = answer.file, row_line(row)

    def _settle(self, files: Collection[str], used: Collection[str]) -> None:
        """Let training see what counts now.

        Args:
            files: pictures that may be hidden now and should not be, or the other way round.
            used: those that an answer has which counts, or will if a later one is taken back.
        """
        shown = {file for file, _ in self._rows.values()} if files else set()
        away = [f for f in files if f and f not in shown and (self._frames / f).exists()]
        for file in away:
            (self._frames / file).rename(self._hidden(file))
        if away:
            fsync_directory(self._frames)
        self._write_manifest()
        back = [f for f in files if f in shown and self._hidden(f).exists()]
        for file in back:
            self._hidden(file).rename(self._frames / file)
        if back:
            fsync_directory(self._frames)
        for file in files:
            if file and file not in used:
                self._hidden(file).unlink(missing_ok=True)

    def _hidden(self, file: str) -> Path:
        """Return what a picture is called that is no example."""
        return self._frames / f".{file}"

    def _picture_of(self, frame: FrameName) -> str:
        return self._rows[frame][0] if frame in self._rows else ""

    def _write_manifest(self) -> None:
        """Write it if it is another one now: 5,000 labels are 0.6 MB, in a few milliseconds."""
        manifest = self._frames / MANIFEST
        if not self._rows:  # a data set without a picture is none
            manifest.unlink(missing_ok=True)
            return
        content = encode_text(header_line() + "".join(line for _, line in self._rows.values()))
        if not manifest.exists() or manifest.read_bytes() != content:
            write_durably(manifest, content)


def cut_unfinished(file: Path) -> None:
    """Cut off the end of a line that was not written whole."""
    with suppress(FileNotFoundError):
        content = file.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            with file.open("r+b") as stream:
                stream.truncate(end)


def locked(file: Path, command: str) -> int:
    """Return the descriptor of a lock, held until it is closed; raises SettingsError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SettingsError(
            f"{file.parent}: another `{command}` is open on this robot; use that one, or end it "
            "first"
        ) from None
    return descriptor
