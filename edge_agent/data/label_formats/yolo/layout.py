"""Where a YOLO data set has its images and what its classes are called."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

from edge_agent.data.frames.folder import image_names
from edge_agent.data.frames.source import image_files
from edge_agent.data.label_formats.data_set import clean_text, inside
from edge_agent.data.label_formats.image_finder import Written, find_images
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import files_below
from fleet_model.files.text import read_text

_YAML_SUFFIXES = (".yaml", ".yml")
_CLASS_FILES = ("classes.txt", "_darknet.labels")  # and *.names
_SPLITS = ("train", "val", "valid", "test")
_Names: TypeAlias = Mapping[str, str]  # class number -> label


class KeyPoints(NamedTuple):
    """`kpt_shape` of a data.yaml: what stands behind every box."""

    points: int
    numbers: int  # of each point: x and y, maybe visibility


class YoloLayout(NamedTuple):
    """What `find_layout` found."""

    root: Path
    splits: tuple[str, ...]  # folders, images or lists of images, as data.yaml spells them
    names: _Names | None = None  # of data.yaml
    key_points: KeyPoints | None = None
    class_files: Mapping[str, _Names] = {}  # folder -> names, where there is no data.yaml

    def label(self, number: str, file: str) -> str:
        """Return a class's label in a label file; without any names it is the number.

        The list of classes in the file's own folder counts, else the nearest one above, else the
        only one.

        Raises:
            KeyError: the names do not have it, or there are several lists and none is near.
        """
        names = self.names
        if names is None and self.class_files:
            above = [str(folder) for folder in PurePosixPath(file).parents]
            near = next((folder for folder in above if folder in self.class_files), None)
            lists = list(self.class_files.values())
            names = self.class_files[near] if near else lists[0]
            if not near and any(other != names for other in lists):
                raise KeyError(number)
        if names is None:
            return number
        return names[number.removesuffix(".0")]  # some tools write 3.0

    def image_names(self, damage: DamageLog) -> list[str]:
        """Return the images of all splits, in their order; every image where no split is there.

        Raises:
            FrameError: a folder cannot be listed.
        """
        everything = image_names(self.root, damage)
        found: dict[str, None] = {}
        for split in self.splits:
            found.update(dict.fromkeys(_names_of(self.root, split, everything, damage)))
        return list(found) or everything


def find_layout(path: Path, damage: DamageLog | None = None) -> YoloLayout | None:
    """Return how the YOLO data set at `path` (its folder or its YAML file) lies, if it is one.

    Args:
        path: what somebody named.
        damage: gets class files whose encoding had to be guessed.

    Raises:
        FrameError: a class file cannot be read.
    """
    if path.is_file() and path.suffix in _YAML_SUFFIXES:
        return _from_yaml(path)
    if not path.is_dir():
        return None
    layout = next(_yaml_layouts(path), None)
    if layout:
        return layout
    files = [file for file in files_below(path, lambda *_: None) if _lists_classes(file.name)]
    if not (_has_labels(path) if files else _lies_side_by_side(path)):
        return None
    log = DamageLog() if damage is None else damage
    lists = {file.parent.relative_to(path).as_posix(): _read_classes(file, log) for file in files}
    if not lists:  # one split of a data set whose data.yaml lies above
        for above in _yaml_layouts(path.parent):
            if any(path.name in split.split("/") for split in above.splits):
                return above._replace(root=path, splits=())
    return YoloLayout(path, (), class_files=lists)


def label_files(image: str) -> list[str]:
    """Return where the labels of an image may be; the first file that is there has them.

    Ultralytics: the last folder "images" is "labels" there. Others: beside the image, as labelImg
    writes them, or in "labels" beside its folder, as darknet has them.
    """
    path = PurePosixPath(image).with_suffix(".txt")
    folders = list(path.parts[:-1])
    places = [folders]
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        places.insert(0, [*folders[:last], "labels", *folders[last + 1 :]])
    if folders:
        places.append([*folders[:-1], "labels"])
    return list(dict.fromkeys("/".join([*place, path.name]) for place in places))


def _yaml_layouts(folder: Path) -> Iterator[YoloLayout]:
    for file in sorted(folder.iterdir()):
        if file.suffix in _YAML_SUFFIXES and file.is_file():
            layout = _from_yaml(file)
            if layout:
                yield layout


def _from_yaml(file: Path) -> YoloLayout | None:
    """Return what a data.yaml says; None if it is none.

    Every value is read as text, so a class called "no" or "1.0" stays that.
    """
    import yaml

    try:
        text = read_text(file, file.name, DamageLog())
        content: Any = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
    except (yaml.YAMLError, FrameError, ValueError, TypeError, RecursionError):
        return None
    names = _names(content.get("names")) if isinstance(content, dict) else None
    if names is None:
        return None
    base = next(iter(_texts(content.get("path"))), "")
    splits = [
        f"{base}/{text}" if base else text for key in _SPLITS for text in _texts(content.get(key))
    ]
    return YoloLayout(file.parent, tuple(splits), names, _key_points(content.get("kpt_shape")))


def _key_points(value: Any) -> KeyPoints | None:
    texts = _texts(value)
    if len(texts) != 2 or not all(text.isdecimal() and len(text) < 6 for text in texts):
        return None
    return KeyPoints(*map(int, texts))


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


def _lists_classes(name: str) -> bool:
    return name in _CLASS_FILES or name.endswith(".names")


def _read_classes(file: Path, damage: DamageLog) -> _Names:
    lines = read_text(file, file.name, damage).splitlines()
    return {
        str(number): clean_text(line.strip()) for number, line in enumerate(lines) if line.strip()
    }


def _lies_side_by_side(path: Path) -> bool:
    """Return whether there are images/ and labels/ with labels, here or in a split's folder."""
    folders = (path, *(path / split for split in _SPLITS))
    beside = any((f / "images").is_dir() and (f / "labels").is_dir() for f in folders)
    return beside and _has_labels(path)


def _has_labels(path: Path) -> bool:
    """Return whether any image has a label file. Folders of classes may have a classes.txt too."""
    found = image_files(path, lambda *_: None)  # what cannot be listed is named when it is read
    names = (file.relative_to(path).as_posix() for file in found)
    return any((path / file).is_file() for name in names for file in label_files(name))


def _names_of(root: Path, split: str, everything: list[str], damage: DamageLog) -> Iterator[str]:
    """Yield the images of one split by name."""
    name = _path_of(root, split)
    if name is None:
        damage.add(
            "missing file",
            f"{root.name}: {split[:80]!r}, which its YAML lists; copy that file to its pictures",
        )
        return
    path = root / name
    try:
        if path.is_dir():
            prefix = f"{name}/" if name else ""
            yield from (f"{prefix}{image}" for image in image_names(path, damage))
        elif path.suffix == ".txt":
            yield from _listed_names(root, name, everything, damage)
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


def _listed_names(
    root: Path, listing: str, everything: list[str], damage: DamageLog
) -> Iterator[str]:
    lines = read_text(root / listing, f"{root.name}/{listing}", damage).splitlines()
    written = {
        number: Written(line.strip(), listing)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    }
    found = find_images(everything, written.values())
    for number, each in written.items():
        if each in found:
            yield found[each]
        else:
            bare = each.name.replace("\\", "/").rpartition("/")[2][:80]
            damage.add("unknown image", f"{root.name}/{listing} line {number}: {bare!r}")
