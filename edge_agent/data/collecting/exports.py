"""The files of an export, and the objects in them that are posts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.errors import FrameError, one_line
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import files_below, unreadable
from fleet_model.tables.json_lines import JsonTable

ENDS = (".json", ".jsonl", ".ndjson", ".js")
LARGEST = 512 << 20  # bytes of one JSON object; arrays and lines may be larger
NO_POSTS = "file without records"
BAD_FILE = "unreadable file"


class Found(NamedTuple):
    """An object of an export."""

    place: str  # "tweets.js object 17"
    folder: Path  # where its file lies
    thing: dict[str, Any]


def files_of(export: Path, damage: DamageLog) -> list[Path]:
    """Return the JSON files of an export.

    Raises:
        FrameError: it is not there, or has none.
    """
    if export.is_file():
        return [export]
    if not export.is_dir():
        raise FrameError(f"{export.name}: there is no such export", "missing file")
    below = files_below(export, lambda folder, _: damage.add("unreadable folder", folder.name))
    found = [file for file in below if file.name.lower().endswith(ENDS)]
    if not found:
        raise FrameError(f"{export.name}: has no JSON ({', '.join(ENDS)})", "no examples")
    return found


def posts_of(file: Path, damage: DamageLog) -> Iterator[Found]:
    """Yield the objects of a file: of an array, of lines, or of the longest list in an object.

    What cannot be read goes to `damage`.
    """
    name = one_line(file.name)
    try:
        for number, thing in _things(file, name, damage):
            yield Found(f"{name} object {number}", file.parent, thing)
    except OSError as error:
        damage.add(BAD_FILE, f"{unreadable(name, error)}")
    except FrameError as error:
        damage.add(BAD_FILE, str(error))


def _things(file: Path, name: str, damage: DamageLog) -> Iterator[tuple[int, dict[str, Any]]]:
    whole = _object(file)
    if whole is None:  # an array, or lines
        row, before = None, damage.all()
        for row in JsonTable(file, name).rows(damage):
            yield row.number, dict(row.cells)
        if row is None and damage.all() == before:  # it is empty
            damage.add(NO_POSTS, name)
        return
    posts = _longest(whole)
    if not posts:
        damage.add(NO_POSTS, name)
    yield from enumerate(posts, start=1)


def _object(file: Path) -> Any:
    """Return the JSON of a file that is one object, or an assignment of JavaScript; else None."""
    with file.open("rb") as stream:
        start = stream.read(4096).decode("utf-8-sig", "replace").lstrip()
    script = file.name.lower().endswith(".js")
    if start.startswith("[") or (not start.startswith("{") and not script):
        return None
    if file.stat().st_size > LARGEST:
        return None
    text = file.read_bytes().decode("utf-8-sig", "replace")
    if script:
        _, _, text = text.partition("=")
    try:
        return json.loads(text.strip().rstrip(";"))
    except (ValueError, RecursionError):  # lines, or damage, which the reader of lines tells
        return None


def _longest(thing: Any, depth: int = 0) -> list[dict[str, Any]]:
    """Return the list with most objects, at most three levels down; an object alone is a list."""
    if isinstance(thing, list):
        return [one for one in thing if isinstance(one, dict)]
    if not isinstance(thing, dict) or depth > 3:
        return []
    found = [_longest(value, depth + 1) for value in thing.values()]
    best = max(found, key=len, default=[])
    return best or ([thing] if depth == 0 else [])
