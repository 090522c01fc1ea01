"""From exports of platforms to a folder with a table and its pictures."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edge_agent.data.collecting.exports import Found, files_of, posts_of
from edge_agent.data.collecting.fields import Post, post_of
from fleet_model.durable import remove_asides, telling_of_the_disk, write_durably, writing
from fleet_model.errors import FrameError, SettingsError, one_line
from fleet_model.files.damage import Damage, DamageLog
from fleet_model.pictures.image_header import read_header

RECORDS, IMAGES = "records.jsonl", "images"
MOST_BYTES = 64 << 20  # of a picture's file; the workload reads no larger one
LONGEST_TEXT = 100_000  # characters
EMPTY, AGAIN = "without a text", "already there"
ADDRESS, OUTSIDE = "with a picture at an address", "with a picture outside of the export"
MISSING, BROKEN = "with a picture that is not there", "with a broken picture"
OTHER = "with a picture of another format"
LARGE, LONG = "with a picture too large", f"longer than {LONGEST_TEXT} characters"
_LOSSES = (MISSING, BROKEN, OTHER, LARGE, OUTSIDE)  # what somebody may want to mend
_LETTERS = 32  # of the digest that names a copy
_ENDS = {"jpeg": ".jpg"}  # of a format that is not called as its files end


class Export(NamedTuple):
    """What is collected, and what its records are said to be from."""

    path: Path
    source: str  # "": what each record says, else the name of the export


@dataclass(slots=True)
class Collected:
    """What became of exports."""

    found: int = 0  # objects
    written: int = 0
    pictures: int = 0  # records with one
    further: int = 0  # pictures of records that have several; the first is taken
    without_time: int = 0
    without_author: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    left_out: DamageLog = field(default_factory=DamageLog)  # records, by reason
    damage: DamageLog = field(default_factory=DamageLog)  # what could not be read

    @property
    def losses(self) -> tuple[Damage, ...]:
        """Return what is damaged or missing, as against empty or twice there."""
        lost = [one for one in self.left_out.all() if one.kind in _LOSSES]
        return (*self.damage.all(), *lost)


def export_of(text: str) -> Export:
    """Return what "board=/data/export" or a path alone names."""
    name, mark, path = text.partition("=")
    if mark and re.fullmatch(r"[\w.-]{1,64}", name) and not Path(text).exists():
        return Export(Path(path), name)
    return Export(Path(text), "")


def collect(exports: Sequence[Export], into: Path) -> Collected:
    """Write the records of exports as a table, and copies of their pictures beside it.

    A record has text, image (a file below IMAGES, "" for none), time, source and author. The table
    is replaced in one step; after a kill the same call ends with the same folder.

    Args:
        exports: files, or folders with JSON files.
        into: becomes the folder.

    Raises:
        FrameError: an export is not there, or has no JSON.
        SettingsError: `into` is in an export, which would collect itself.
        StorageError: the disk is full or shut.
    """
    for export in exports:
        if export.path.is_dir() and into.resolve().is_relative_to(export.path.resolve()):
            raise SettingsError(
                f"--out {into.name} is in the export {export.path.name}; choose another folder"
            )
    told, seen, kept = Collected(), set[bytes](), set[str]()
    files = [(export, file) for export in exports for file in files_of(export.path, told.damage)]
    room = telling_of_the_disk(into.name, "make room, or choose another folder: --out")
    with room:
        with writing(into / RECORDS) as table:
            for export, file in files:
                for found in posts_of(file, told.damage):
                    told.found += 1
                    kept.add(_add(found, export, into, table, seen, told))
        # After the table has its place: the one before needs its pictures until then.
        for picture in (into / IMAGES).glob("*.*"):  # of an earlier call, and nobody else's
            if f"{IMAGES}/{picture.name}" not in kept and _is_copy(picture):
                picture.unlink(missing_ok=True)
        remove_asides(into)
        remove_asides(into / IMAGES)
    return told


def _is_copy(picture: Path) -> bool:
    """Return whether a picture has the name of its content; platforms too use 32 such letters."""
    if len(picture.stem) != _LETTERS or not picture.is_file():
        return False
    return _Picture(picture.read_bytes(), "").digest == picture.stem


def _add(
    found: Found, export: Export, into: Path, table: BinaryIO, seen: set[bytes], told: Collected
) -> str:
    """Write one record, or say why not; return the name of its picture, "" for none."""
    post = post_of(found.thing)
    try:
        _require_text(post)
        image = _picture(post, found, export)
        key = blake2b(f"{_folded(post.text)}\0{image.digest}".encode(), digest_size=16).digest()
        if key in seen:
            raise FrameError("the same text and picture were there before", AGAIN)
    except FrameError as error:
        told.left_out.add(error.reason, found.place)
        return ""
    seen.add(key)
    name = image.written(into)
    source = export.source or post.source or one_line(export.path.resolve().stem)
    record = {
        "text": post.text, "image": name, "time": post.time, "source": source, "author": post.author
    }  # fmt: skip
    table.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    told.written += 1
    told.pictures += bool(name)
    told.further += max(0, len(post.images) - 1)
    told.without_time += not post.time
    told.without_author += not post.author
    told.sources[source] += 1
    return name


class _Picture(NamedTuple):
    content: bytes  # b"": none
    end: str  # ".jpg"

    @property
    def digest(self) -> str:
        return sha256(self.content).hexdigest()[:_LETTERS] if self.content else ""

    def written(self, into: Path) -> str:
        """Write the picture where it is not yet; return its name in the table."""
        if not self.content:
            return ""
        name = f"{IMAGES}/{self.digest}{self.end}"
        if not (into / name).exists():
            write_durably(into / name, self.content)
        return name


def _require_text(post: Post) -> None:
    if not post.text:
        raise FrameError("there is nothing to learn in it", EMPTY)
    if len(post.text) > LONGEST_TEXT:
        raise FrameError(f"a text of {len(post.text)} characters", LONG)


def _picture(post: Post, found: Found, export: Export) -> _Picture:
    """Return the first picture of a post; raises FrameError for one that cannot be used."""
    if not post.images:
        return _Picture(b"", "")
    name = post.images[0]
    if "://" in name:
        raise FrameError("a picture at an address is not fetched", ADDRESS)
    root = export.path.resolve() if export.path.is_dir() else export.path.resolve().parent
    for file in _places(name, found.folder.resolve(), root):
        try:
            if file.stat().st_size > MOST_BYTES:
                raise FrameError(f"a picture of {file.stat().st_size} bytes", LARGE)
            content = file.read_bytes()
        except (OSError, ValueError):
            continue
        try:
            header = read_header(content)
        except FrameError as error:
            kind = OTHER if error.reason == "unknown format" else BROKEN
            raise FrameError(str(error), kind) from None
        return _Picture(content, _ENDS.get(header.format, f".{header.format}"))
    raise FrameError("there is no such picture", MISSING)


def _places(name: str, folder: Path, root: Path) -> Iterator[Path]:
    """Yield where a picture may lie: named from its file's folder, or from one above it.

    Raises:
        FrameError: it names a file outside of the export.
    """
    below = [folder, *(up for up in folder.parents if up.is_relative_to(root))]
    inside = False
    for start in below:
        try:
            with_name = (start / name).resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, no name that a file can have
            inside = True
            continue
        if with_name.is_relative_to(root):
            inside = True
            yield with_name
    if not inside:
        raise FrameError("a picture outside of the export", OUTSIDE)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
