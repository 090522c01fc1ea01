"""Where a YOLO data set has its images and what its classes are called."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.folder import image_names
from edge_agent.data.frames.source import image_files
from edge_agent.data.label_formats.data_set import clean_text, inside
from fleet_model.errors import FrameError

_YAML_SUFFIXES = (".yaml", ".yml")
_CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names", "classes.names")
_SPLITS = ("train", "val", "valid", "test")
_LARGEST_TEXT = 16 << 20  # bytes of a YAML or list file


class YoloLayout(NamedTuple):
    """What `find_layout` found."""

    root: Path
    splits: tuple[str, ...]  # folders, images or lists of images, as data.yaml spells them
    names: Mapping[str, str] | None  # class number -> label; None: nobody names the classes

    def label(self, number: str) -> str:
        """Return a class's label; raises KeyError where the names do not have it."""
        if self.names is None:
            return number
        return self.names[number.removesuffix(".0")]  # some tools write 3.0

    def image_names(self, damage: DamageLog) -> list[str]:
        """Return the images of all splits, in their order; every image where no split is there.

        Raises:
            FrameError: a folder cannot be listed.
        """
        found: dict[str, None] = {}
        for split in self.splits:
            for name in _names_of(self.root, split, damage):
                found[name] = None
        return list(found) or image_names(self.root, damage)


def find_layout(path: Path) -> YoloLayout | None:
    """Return how the YOLO data set at `path` (its folder or its YAML file) lies, if it is one."""
    if path.is_file() and path.suffix in _YAML_SUFFIXES:
        return _from_yaml(path)
    if not path.is_dir():
        return None
    for file in sorted(path.iterdir()):
        if file.suffix in _YAML_SUFFIXES and file.is_file():
            layout = _from_yaml(file)
            if layout:
                return layout
    class_file = next((path / name for name in _CLASS_FILES if (path / name).is_file()), None)
    if not (_has_labels(path) if class_file else _lies_side_by_side(path)):
        return None
    return YoloLayout(path, (), _read_classes(class_file) if class_file else None)


def label_file(image: str) -> str:
    """Return where the labels of an image are: the last folder "images" is "labels" there."""
    path = PurePosixPath(image).with_suffix(".txt")
    parts = list(path.parts)
    folders = [at for at, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return "/".join(parts)


def _from_yaml(file: Path) -> YoloLayout | None:
    names, splits = _read_yaml(file)
    if names is None:
        return None
    return YoloLayout(file.parent, tuple(splits), names)


def _read_yaml(file: Path) -> tuple[Mapping[str, str] | None, list[str]]:
    """Return the class names and the paths of the splits of a data.yaml; (None, []) if it is none.

    Every value is read as text, so a class called "no" or "1.0" stays that.
    """
    import yaml

    try:
        with file.open("rb") as stream:
            content: Any = yaml.load(stream.read(_LARGEST_TEXT), Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, OSError, ValueError, TypeError, RecursionError):
        return None, []
    if not isinstance(content, dict):
        return None, []
    names = _names(content.get("names"))
    base = next(iter(_texts(content.get("path"))), "")
    splits = [
        f"{base}/{text}" if base else text for key in _SPLITS for text in _texts(content.get(key))
    ]
    return names, splits


def _names(value: Any) -> Mapping[str, str] | None:
    if isinstance(value, dict):
        pairs = value.items()
        texts = {k: name for k, name in pairs if isinstance(k, str) and isinstance(name, str)}
        return {number: clean_text(name) for number, name in texts.items()}
    if isinstance(value, list):
        return {str(i): clean_text(name) for i, name in enumerate(value) if isinstance(name, str)}
    return None


def _texts(value: Any) -> list[str]:
    listed = value if isinstance(value, list) else [value]
    return [text for text in listed if isinstance(text, str) and text]


def _read_classes(file: Path) -> Mapping[str, str]:
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise FrameError(f"{file.name}: {error.strerror}") from None
    return {str(number): line.strip() for number, line in enumerate(lines) if line.strip()}


def _lies_side_by_side(path: Path) -> bool:
    """Return whether there are images/ and labels/ with labels, here or in a split's folder."""
    folders = (path, *(path / split for split in _SPLITS))
    beside = any((f / "images").is_dir() and (f / "labels").is_dir() for f in folders)
    return beside and _has_labels(path)


def _has_labels(path: Path) -> bool:
    """Return whether any image has a label file. Folders of classes may have a classes.txt too."""
    found = image_files(path, lambda *_: None)  # what cannot be listed is named when it is read
    names = (file.relative_to(path).as_posix() for file in found)
    return any((path / label_file(name)).is_file() for name in names)


def _names_of(root: Path, split: str, damage: DamageLog) -> Iterator[str]:
    """Yield the images of one split by name."""
    name = _path_of(root, split)
    if name is None:
        damage.add("missing file", f"{root.name}: {split[:80]!r}, which its YAML file lists")
        return
    path = root / name
    try:
        if path.is_dir():
            prefix = f"{name}/" if name else ""
            yield from (f"{prefix}{image}" for image in image_names(path, damage))
        elif path.suffix == ".txt":
            yield from _listed_names(root, path, damage)
        else:
            yield name
    except FrameError as error:
        damage.add(error.reason, str(error))


def _path_of(root: Path, split: str) -> str | None:
    """Return where a split is below the root; None where it is not.

    Published data sets were moved since their YAML file was written, so their paths begin with
    ../ or with another machine's folders. The longest end of the path that is there is taken.
    """
    parts = [part for part in split.replace("\\", "/").split("/") if part not in ("", ".")]
    if set(parts) <= {".."}:
        return ""
    while parts:
        name = "/".join(parts)
        if ".." not in parts and inside(root, name).exists():
            return name
        parts = parts[1:]
    return None


def _listed_names(root: Path, listing: Path, damage: DamageLog) -> Iterator[str]:
    try:
        lines = listing.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        raise FrameError(f"{listing.name}: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        name = line.strip().removeprefix("./")
        if not name:
            continue
        try:
            inside(root, name)
        except FrameError as error:
            damage.add(error.reason, f"{listing.name} line {number}: {error}")
        else:
            yield name
