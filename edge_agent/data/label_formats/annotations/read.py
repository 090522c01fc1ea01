"""Find the files beside pictures that say what is on them; what nobody here can read is counted."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from edge_agent.data.frames.source import IMAGE_SUFFIXES
from edge_agent.data.label_formats.annotations.cvat import told_by_cvat
from edge_agent.data.label_formats.annotations.json_file import told_by_json
from edge_agent.data.label_formats.annotations.one_hot import NAME as ONE_HOT
from edge_agent.data.label_formats.annotations.one_hot import told_by_one_hot
from edge_agent.data.label_formats.annotations.told import PictureLabels, Told, labels_by_image
from edge_agent.data.label_formats.annotations.voc import told_by_voc
from edge_agent.data.label_formats.table import renamed, told_by_table
from edge_agent.data.manifest import columns_of
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import files_below
from fleet_model.files.text import encoding_of


def _told_by_csv(path: Path, file: str, damage: DamageLog) -> Iterator[Told] | None:
    """Read a table; one with stamps is a manifest or an answer of `predict`, which is no truth."""
    if path.name == ONE_HOT:
        return told_by_one_hot(path, file, damage)
    columns = renamed(columns_of(path))
    if "stamp_ns" in columns:
        return iter(())
    return told_by_table(path, file, damage) if {"file", "label"} <= set(columns) else None


Reader: TypeAlias = Callable[[Path, str, DamageLog], Iterator[Told] | None]

# suffix -> who may know such a file; a reader returns None for a file that is not its own
READERS: Mapping[str, Sequence[Reader]] = {
    ".csv": (_told_by_csv,),
    ".xml": (told_by_voc, told_by_cvat),
    ".json": (told_by_json,),
}
_SUFFIXES = (*READERS, ".txt", ".tsv", ".jsonl", ".ndjson", ".lst")
UNREAD = "annotations not read"
_LOOKED_AT = 1 << 16  # bytes at the beginning of a file that may name pictures
_MOST_LOOKED_AT = 100  # files whose content is looked at
_CALLED_SO = re.compile(r"_?(?:annotations?|instances|_darknet|_classes)(?![a-z]).*", re.IGNORECASE)
_FOLDERS = ("annotations", "annotation", "ann", "anns", "labels")
_IMAGE_NAME = re.compile(
    rf"[^\s,;:'\"<>()\[\]{{}}|=/\\]+(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})\b", re.IGNORECASE
)


class Annotations(NamedTuple):
    """What the files beside the pictures say."""

    labels: Mapping[str, PictureLabels]  # image -> what is said of it
    files: int  # how many there are, read or not; 0: nobody annotated these pictures in a tool


def read_annotations(
    root: Path, images: Iterable[str], ours: Iterable[str], damage: DamageLog
) -> Annotations:
    """Read every annotation file below `root`.

    Args:
        root: the data set.
        images: names of all its pictures.
        ours: files at its root that are read elsewhere.
        damage: counts the files that are not understood as "annotations not read".
    """
    names = list(images)
    stems = {PurePosixPath(name).stem for name in names}
    bare_names = {PurePosixPath(name).name.lower() for name in names}
    told: list[Told] = []
    count = looked_at = 0
    for file in _text_files(root, set(ours)):
        found, why = _read(root, file, damage)
        if found is not None:
            told += found
            count += bool(found)
            continue
        path = PurePosixPath(file)
        certain = path.stem in stems or path.stem.lower() in bare_names
        certain = certain or any(part.lower() in _FOLDERS for part in path.parts[:-1])
        certain = certain or bool(_CALLED_SO.match(path.name))
        if not certain and looked_at < _MOST_LOOKED_AT:
            looked_at += 1
            certain = bool(why) or _names_images(root / file, bare_names)
        if certain:
            count += 1
            damage.add(UNREAD, f"{root.name}/{file}{f': {why}' if why else ''}")
    return Annotations(labels_by_image(root.name, names, told, damage), count)


def _read(root: Path, file: str, damage: DamageLog) -> tuple[list[Told] | None, str]:
    """Return what a file says, or None and maybe why it cannot be understood."""
    for reader in READERS.get(PurePosixPath(file).suffix.lower(), ()):
        lost = DamageLog()
        try:
            found = reader(root / file, file, lost)
            told = None if found is None else list(found)
        except FrameError as error:
            return None, str(error)
        if told is not None:
            for loss in lost.all():
                damage.add(loss.kind, f"{root.name}/{loss.begins}", loss.count)
            return told, ""
    return None, ""


def _text_files(root: Path, ours: set[str]) -> Iterator[str]:
    for path in files_below(root, lambda *_: None):  # what cannot be listed was named before
        file = path.relative_to(root).as_posix()
        if file not in ours and (path.suffix.lower() in _SUFFIXES or _CALLED_SO.match(path.name)):
            yield file


def _names_images(file: Path, bare_names: set[str]) -> bool:
    """Return whether a file says more of pictures than a list of their names does."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_LOOKED_AT)
    except OSError:
        return False
    text = content.decode(encoding_of(content[:4]), "replace")
    lines = (line.strip() for line in text.splitlines())
    return '"annotations"' in text or any(
        match[0].lower() in bare_names
        for line in lines
        if not line.lower().endswith(IMAGE_SUFFIXES) or re.search(r"[,;\s]", line)
        for match in _IMAGE_NAME.finditer(line)
    )
