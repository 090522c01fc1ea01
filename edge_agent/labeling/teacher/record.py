"""The file of one teacher: written by one process, whole after a kill, taken back as a whole.

The first line is who teaches, from which scores on. Answers are appended behind it. A start with
the same first line goes on behind the last whole answer; any other teacher, calibration or list of
classes begins anew, since its answers would be others. It does so in a hidden file, which takes the
place of the one before once all frames have been asked about: until then the labels before count.

Which frames had a label that is replaced or taken back is kept for good: models learned from them.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edge_agent.examples.taught import (
    LEARNED,
    SUFFIX,
    Said,
    Told,
    place_of,
    read_learned,
    read_told,
)
from edge_agent.labeling.answers import cut_unfinished, locked
from fleet_model.durable import (
    appending,
    make_directory,
    remove_asides,
    remove_durably,
    rename_durably,
    telling_of_the_disk,
    write_durably,
)
from fleet_model.errors import SettingsError

_OF_THE_START = ("at", "by", "held_out")  # of the first line, what another start may say otherwise
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_ADVICE = "make room there, or let this user write; what it has said before is kept"


class Record:
    """The one writer of a folder of teachers, until `close`; methods may raise StorageError."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder; it is made where it is missing.

        Raises:
            SettingsError: another process has it.
        """
        self._folder = folder
        self._file = self._named = folder
        self.said: dict[str, Said] = {}  # key -> what was said before, or since
        with self._disk():
            make_directory(folder)
            self._lock: int | None = locked(folder / ".lock", "edge-agent label --teacher")
            remove_asides(folder)

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(self, who: Mapping[str, Any]) -> None:
        """Go on where the same teacher has ended, or begin anew, aside where labels count.

        Args:
            who: the first line as JSON values, with the name under "teacher".
        """
        self._named = self._folder / f"{who['teacher']}{SUFFIX}"
        with self._disk():
            before = read_told(self._named)
            is_same = _lasting(before.who) == _lasting(who)
            if is_same or not _labelled(before):
                self._file = self._named
                _aside(self._named).unlink(missing_ok=True)
            else:
                self._file = _aside(self._named)
                before = read_told(self._file)
                is_same = _lasting(before.who) == _lasting(who)
            if is_same:
                self.said = dict(before.said)
                cut_unfinished(self._file)
            else:
                self.said = {}
                write_durably(self._file, json.dumps(who) + "\n")

    def add(self, said: Mapping[str, Said]) -> None:
        """Keep answers; they are on disk when this returns."""
        with self._disk(), appending(self._file) as stream:
            stream.write(b"".join(one.line(key) for key, one in said.items()))
        self.said |= said

    def finish(self) -> None:
        """Let what was said since `begin` count, in place of what the teacher said before."""
        if self._file != self._named:
            with self._disk():
                self._keep_places(read_told(self._named))
                rename_durably(self._file, self._named)
            self._file = self._named

    def forget(self, name: str) -> dict[str, Any]:
        """Take back all that a teacher has said; return its first line.

        Raises:
            SettingsError: there is no such teacher.
        """
        known = self.names()
        if name not in known:
            raise SettingsError(
                f"no teacher {name!r} has labelled frames here; "
                + (f"these have: {', '.join(known)}" if known else "none has")
            )
        file = self._folder / f"{name}{SUFFIX}"
        told = read_told(file)
        with self._disk():
            self._keep_places(told)
            _aside(file).unlink(missing_ok=True)
            remove_durably(file)
        return {"teacher": name, "frames": len(_labelled(told))}

    def names(self) -> Sequence[str]:
        """Return the teachers that have a file."""
        return sorted(one.name.removesuffix(SUFFIX) for one in self._folder.glob(f"[!.]*{SUFFIX}"))

    def _keep_places(self, told: Told) -> None:
        """Remember which frames had a label, on disk before it goes."""
        file = self._folder / LEARNED
        places = set(map(place_of, _labelled(told))) - read_learned(self._folder)
        if places:
            cut_unfinished(file)
            with appending(file) as stream:
                stream.write(b"".join(json.dumps(p).encode() + b"\n" for p in sorted(places)))

    def _disk(self) -> AbstractContextManager[None]:
        return telling_of_the_disk(f"labels of teachers in {self._folder}", _ADVICE)


def require_name(name: str) -> str:
    """Return the name of a teacher; raises SettingsError if no file may be called so."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"--as {name[:100]!r}: a teacher's name has up to 100 letters, digits, '_', '-' and "
            "'.', and begins with none of the last two"
        )
    return name


def name_for(shown: str) -> str:
    """Return a teacher's name that is like the name of a file or folder."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", shown).strip(".-")[:100] or "teacher"


def _aside(file: Path) -> Path:
    """Return where a teacher begins anew while what it said before counts."""
    return file.with_name(f".{file.name}")


def _labelled(told: Told) -> list[str]:
    return [key for key, one in told.said.items() if not one.refused]


def _lasting(who: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in who.items() if name not in _OF_THE_START}
